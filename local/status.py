"""`make status`: what each part is doing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil

from local.settings import Settings
from local.supervision import Supervisor, left_out

if TYPE_CHECKING:
    from pathlib import Path

    from local.parts import Build

DEGRADED = 1
NOT_RUNNING = 3

_ROW = "{:<18} {:>7} {:>17} {:>9} {:>9} {:>9}  {}"


def status(run_dir: Path, build: Build) -> int:
    """Print a table of the parts.

    Returns:
        0 when all are ready, `DEGRADED` when some are not, `NOT_RUNNING` when nothing runs.
    """
    supervisor = Supervisor.find(run_dir)
    if not supervisor:
        print("Nothing is running. `make up` starts it.")
        return NOT_RUNNING
    settings = Settings.of_running(run_dir)
    states, ended, absent = supervisor.states(), supervisor.ended(), left_out(run_dir)
    total = _memory(psutil.Process(supervisor.pid()))
    healthy = True
    print(_ROW.format("PART", "PID", "PORT", "MEMORY", "UPTIME", "RESTARTS", "STATE"))
    for part in build(settings).parts:
        info = states.get(part.name)
        pid, memory, uptime = "-", "-", "-"
        if not info:  # the code has changed under the stack
            state = "new, `make down up` starts it"
        elif part.name in absent:
            state = f"absent: {absent[part.name]}"
        elif reason := part.ready():
            state = f"{info['statename'].lower()}, {reason}"
        else:
            state = "ready"
        healthy = healthy and (state == "ready" or part.name in absent)
        if info and info["pid"]:
            size = _memory_of_tree(info["pid"])
            total += size
            pid, memory, uptime = str(info["pid"]), f"{size / 1e6:.0f} MB", _duration(info["now"] - info["start"])
        ports = ",".join(map(str, part.ports.values()))
        print(_ROW.format(part.name, pid, ports, memory, uptime, ended.get(part.name, 0), state))
    print(f"{'with supervisor':<44} {total / 1e6:>6.0f} MB")
    if lost := supervisor.lost_log_lines():
        print(f"Log lines that could not be written: {lost}. Look for room in {run_dir / 'logs'}.")
    if not settings.telemetry:
        print("Telemetry is off (TELEMETRY=off): no traces, log search or metrics history.")
    return 0 if healthy else DEGRADED


def _memory_of_tree(pid: int) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return sum(map(_memory, [process, *process.children(recursive=True)]))
    return 0


def _memory(process: psutil.Process) -> int:
    """Count a process's memory in bytes, what processes share divided among them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
