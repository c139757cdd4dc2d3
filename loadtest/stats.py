"""Locust's numbers, written down: each second for the terminal, each stage, and at the end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from locust.stats import calculate_response_time_percentile, diff_response_time_dicts

from loadtest.limits import ORDER

if TYPE_CHECKING:
    from pathlib import Path

    from locust.stats import RequestStats, StatsEntry

    from loadtest.records import Slow
    from loadtest.shapes import Shape

_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class History:
    """The run by the second, in a file that is read while it grows; and by stages."""

    def __init__(self, path: Path, stats: RequestStats, plan: Shape) -> None:
        self._path, self._stats, self._plan = path, stats, plan
        self._began: float | None = None
        self._stage: int | None = None
        self._at_stage: dict[str, Any] = {}
        self.stages: list[dict[str, Any]] = []
        self.most_users = 0

    def note(self, users: int) -> None:
        """Write a line of now."""
        if self._began is None:
            if not users and not self._stats.total.num_requests:
                return
            self._began = time.monotonic()
        self.most_users = max(self.most_users, users)
        seconds = time.monotonic() - self._began
        total, order = self._stats.total, self._order()
        line = {
            "at": time.time(),
            "seconds": seconds,
            "users": users,
            "requests": total.num_requests,
            "failures": total.num_failures,
            "orders": order.num_requests,
            "rate": total.current_rps,
            "order_rate": order.current_rps,
            "order_p95_ms": order.get_current_response_time_percentile(0.95),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        stage = self._plan.index_at(seconds)
        if stage != self._stage:
            self._end_stage()
            self._stage = stage
            self._at_stage = self._snapshot()

    def finish(self) -> None:
        """End the stage that is not over."""
        self._end_stage()
        self._stage = None

    def _end_stage(self) -> None:
        if self._stage is None:
            return
        began, now = self._at_stage, self._snapshot()
        seconds = now["at"] - began["at"]
        if seconds < 1:
            return
        orders = now["orders"] - began["orders"]
        times = diff_response_time_dicts(now["order_times"], began["order_times"])
        self.stages.append(
            {
                "users": self._plan.stages[self._stage].users,
                "began": time.time() - seconds,
                "seconds": seconds,
                "rate": (now["requests"] - began["requests"]) / seconds,
                "order_rate": orders / seconds,
                "failures": now["failures"] - began["failures"],
                **{name: _percentile(times, orders, share) for name, share in _PERCENTILES.items()},
            }
        )

    def _snapshot(self) -> dict[str, Any]:
        total, order = self._stats.total, self._order()
        return {
            "at": time.monotonic(),
            "requests": total.num_requests,
            "failures": total.num_failures,
            "orders": order.num_requests,
            "order_times": dict(order.response_times),
        }

    def _order(self) -> StatsEntry:
        method, name = ORDER
        return self._stats.get(name, method)


def result(stats: RequestStats, slow: list[Slow], stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Give all that is known at the end."""
    entries = [_entry(entry) for _, entry in sorted(stats.entries.items()) if entry.num_requests]
    errors = [
        {"method": error.method, "name": error.name, "error": str(error.error), "count": error.occurrences}
        for error in sorted(stats.errors.values(), key=lambda error: -error.occurrences)
    ]
    return {
        "began": stats.total.start_time,
        "ended": stats.total.last_request_timestamp or stats.total.start_time,
        "total": _entry(stats.total),
        "requests": entries,
        "errors": errors,
        "stages": stages,
        "slow": [vars(request) for request in slow],
    }


def _entry(entry: StatsEntry) -> dict[str, Any]:
    return {
        "method": entry.method,
        "name": entry.name,
        "count": entry.num_requests,
        "failures": entry.num_failures,
        "rate": entry.total_rps,
        **{name: entry.get_response_time_percentile(share) for name, share in _PERCENTILES.items()},
        "max": entry.max_response_time,
    }


def _percentile(times: dict[int, int], count: int, share: float) -> int | None:
    return calculate_response_time_percentile(times, count, share) if count > 0 else None
