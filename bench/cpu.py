"""Processor time and memory of a stack, part by part."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil

from local.supervision import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

SUPERVISOR = "supervisor"


def pids(run_dir: Path) -> dict[str, int]:
    """Give the main process of each running part, and the supervisor's."""
    supervisor = Supervisor.find(run_dir)
    if supervisor is None:
        return {}
    found = {name: int(info["pid"]) for name, info in supervisor.states().items() if info["pid"]}
    return found | {SUPERVISOR: supervisor.pid()}


def seconds(parts: dict[str, int]) -> dict[str, float]:
    """Give the processor time that each part has used.

    With that of its children, the living and the ended: a database has a process for each connection.
    """
    used = {}
    for name, pid in parts.items():
        used[name] = 0.0
        for process in _tree(pid, with_children=name != SUPERVISOR):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[name] += times.user + times.system
                if name != SUPERVISOR:
                    used[name] += times.children_user + times.children_system
    return used


def memory(parts: dict[str, int]) -> dict[str, dict[str, float]]:
    """Give each part's memory in MB: `pss`, in which what processes share is divided among them, and `rss`."""
    found = {}
    for name, pid in parts.items():
        pss = rss = 0
        for process in _tree(pid, with_children=name != SUPERVISOR):
            with contextlib.suppress(psutil.NoSuchProcess):
                own = process.memory_info().rss
                rss += own
                try:
                    pss += process.memory_full_info().pss
                except psutil.AccessDenied:
                    pss += own
        found[name] = {"pss_mb": round(pss / 1e6, 1), "rss_mb": round(rss / 1e6, 1)}
    return found


def _tree(pid: int, *, with_children: bool) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *(process.children(recursive=True) if with_children else ())]
    return []


def machine() -> tuple[float, float]:
    """Give the whole machine's processor time: what was spent, and what there was."""
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice  # which are in user and nice too
    return total - times.idle - times.iowait, total
