"""What a run leaves beside Locust's numbers: each order with what its client was told, and the slowest requests.

A process collects; what it has collected goes to the master with Locust's reports, and from there to a file.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SLOW_KEPT = 5
"""Slow requests that are kept of each name."""

Answer = Literal["told", "refused", "unanswered"]


@dataclass(frozen=True)
class Attempt:
    """An order that was sent, and what came back."""

    key: str
    """Its Idempotency-Key, by which it is found in the database."""
    product_id: int
    quantity: int
    answer: Answer
    """told: an order and its status; refused: no order (4xx); unanswered: nobody can know (no answer, 5xx)."""
    order_id: int | None = None
    status: str | None = None


@dataclass(frozen=True, order=True)
class Slow:
    """A request that was among the slowest of its name."""

    ms: float
    method: str
    name: str
    answer: str
    """The status, or why there was none."""
    at: float
    """When it began, seconds since the epoch."""
    trace_id: str
    """Empty when it has no trace that was kept."""


class Collected:
    """What this process has collected since it last told."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._slow: dict[tuple[str, str], list[Slow]] = {}

    def slow(self, request: Slow) -> None:
        """Take a request, if it is slow enough."""
        keep_slowest(self._slow.setdefault((request.method, request.name), []), request)

    def drain(self) -> dict[str, list[Any]]:
        """Give all of it, as what can be sent, and forget it."""
        attempts, self.attempts = self.attempts, []
        slow, self._slow = self._slow, {}
        return {
            "attempts": [list(dataclasses.astuple(attempt)) for attempt in attempts],
            "slow": [list(dataclasses.astuple(request)) for requests in slow.values() for request in requests],
        }


def keep_slowest(kept: list[Slow], request: Slow) -> None:
    """Put a request into a heap of the slowest."""
    if len(kept) < SLOW_KEPT:
        heapq.heappush(kept, request)
    elif request > kept[0]:
        heapq.heapreplace(kept, request)


class Ledger:
    """The file of the attempts, one a line, written as they come: what was told stays known if Locust crashes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slow: dict[tuple[str, str], list[Slow]] = {}

    def add(self, drained: dict[str, list[Any]]) -> None:
        """Write down what a process has told."""
        if drained["attempts"]:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(attempt) + "\n" for attempt in drained["attempts"])
        for values in drained["slow"]:
            request = Slow(*values)
            keep_slowest(self._slow.setdefault((request.method, request.name), []), request)

    def slowest(self) -> list[Slow]:
        """Give the slowest of each name, the slowest first."""
        return sorted((request for kept in self._slow.values() for request in kept), reverse=True)


def read_attempts(path: Path) -> Iterator[Attempt]:
    """Read a ledger; a last line that was cut off by a crash is left out."""
    lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ()
    for line in lines:
        if line.endswith("\n"):
            yield Attempt(*json.loads(line))
