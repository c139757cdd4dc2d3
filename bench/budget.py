"""What the whole stack costs before anybody orders: how long it takes to start, and its memory, against a budget."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench import cpu, wrk
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.stacks import BenchStack

BUDGET = Path(__file__).with_name("budget.yaml")
ALL = "all"
AGAIN = "all, a second time"

_REST_SECONDS = 5.0
_CLIENTS = 8


def measure(stack: BenchStack, seconds: float) -> list[dict[str, Any]]:
    """Start a stack in a new folder, and once more; note its memory at rest and after so many seconds of orders.

    Returns:
        For each part and for all: `start_seconds`, `idle_mb`, `loaded_mb` (both PSS) and `rss_mb`, as far as there is
        one, each with its budget as `..._budget` where it has one; also for what has a budget and was not measured.
    """
    first = start_times(stack.up())
    time.sleep(_REST_SECONDS)
    idle = cpu.memory(stack.parts)
    wrk.run(stack.gateway, stack.token(), _CLIENTS, seconds)
    stack.settled()
    loaded = cpu.memory(stack.parts)
    stack.down()
    again = start_times(stack.up())
    found: dict[str, dict[str, Any]] = {}
    for name, taken in first.items():
        if name != ALL:
            found[name] = {"start_seconds": taken}
    for name, memory in idle.items():
        found.setdefault(name, {}).update(idle_mb=memory["pss_mb"])
    for name, memory in loaded.items():
        found.setdefault(name, {}).update(loaded_mb=memory["pss_mb"], rss_mb=memory["rss_mb"])
    found[ALL] = {
        "start_seconds": first[ALL],
        "idle_mb": sum(part["pss_mb"] for part in idle.values()),
        "loaded_mb": sum(part["pss_mb"] for part in loaded.values()),
    }
    found[AGAIN] = {"start_seconds": again[ALL]}
    return with_budget(found)


def with_budget(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the budget beside what was measured."""
    limits = yaml.safe_load(BUDGET.read_text(encoding="utf-8"))
    return [
        {"name": name}
        | found.get(name, {})
        | {f"{field}_budget": limit for field, limit in limits.get(name, {}).items()}
        for name in dict.fromkeys([*found, *limits])
    ]


def start_times(said: str) -> dict[str, float]:
    """Read how long each step of a start took from what `up` said.

    Raises:
        BenchError: It says it in another way than it did.
    """
    steps = {name.strip(): float(taken) for name, taken in re.findall(r"^  (.{18}) .+ ([\d.]+) s$", said, re.MULTILINE)}
    whole = re.search(r"^Everything is ready after ([\d.]+) s\.$", said, re.MULTILINE)
    if not steps or whole is None:
        raise BenchError(f"`up` does not say how long it took:\n{said}")
    return steps | {ALL: float(whole[1])}


def exceeded(parts: list[dict[str, Any]]) -> list[str]:
    """Say what is above its budget, and what has one and was not measured."""
    said = []
    for part in parts:
        for budgeted in (name for name in part if name.endswith("_budget")):
            field, limit = budgeted.removesuffix("_budget"), part[budgeted]
            if field not in part:
                said.append(f"Not measured: {part['name']}: {field}, budget {limit:g}")
            elif part[field] > limit:
                said.append(f"Above its budget: {part['name']}: {field} {part[field]:g}, budget {limit:g}")
    return said
