"""How many users there are at which time, for each purpose; pure numbers, so that they can be tested."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ShapeName = Literal["smoke", "steady", "ramp", "spike", "soak"]

_SPAWN_SECONDS = 10.0
"""How long the users of a stage take to come, at the most."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run must keep to; None is no limit."""

    max_failed: float | None = 0.0
    p95_ms: float | None = None
    p99_ms: float | None = None
    min_rate: float | None = None

    @classmethod
    def names(cls) -> list[str]:
        """Give the names, which are those of the settings."""
        return [limit.name for limit in dataclasses.fields(cls)]


@dataclass(frozen=True)
class Stage:
    """So many users for so long."""

    users: int
    seconds: float

    @property
    def spawn_rate(self) -> float:
        """Users that come or go a second, so that most of the stage has them all."""
        return max(1.0, self.users / min(_SPAWN_SECONDS, self.seconds / 6))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A purpose."""

    name: str
    stages: tuple[Stage, ...]
    think_seconds: float
    limits: Limits = field(default_factory=Limits)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def users(self) -> int:
        """Users at the most."""
        return max(stage.users for stage in self.stages)

    def index_at(self, seconds: float) -> int | None:
        """Find the stage of a time since the start; None at the end."""
        ends = itertools.accumulate(stage.seconds for stage in self.stages)
        return next((index for index, end in enumerate(ends) if seconds < end), None)

    def at(self, seconds: float) -> Stage | None:
        """Give the stage of a time since the start; None at the end."""
        index = self.index_at(seconds)
        return None if index is None else self.stages[index]

    def with_limits(self, **limits: float | None) -> Self:
        """Give the same with other limits."""
        return dataclasses.replace(self, limits=dataclasses.replace(self.limits, **limits))


@dataclass(frozen=True)
class _Purpose:
    users: int
    seconds: float
    think_seconds: float
    stages: Callable[[int, float], tuple[Stage, ...]]
    limits: Limits


def _hold(users: int, seconds: float) -> tuple[Stage, ...]:
    return (Stage(users, seconds),)


def _double(users: int, seconds: float) -> tuple[Stage, ...]:
    """1, 2, 4, ... users, each for as long."""
    steps = [1]
    while steps[-1] < users:
        steps.append(min(steps[-1] * 2, users))
    return tuple(Stage(step, seconds / len(steps)) for step in steps)


def _spike(users: int, seconds: float) -> tuple[Stage, ...]:
    """A fifth of the users, then all of them for a fifth of the time, then a fifth again."""
    few = max(1, users // 5)
    return (Stage(few, 0.4 * seconds), Stage(users, 0.2 * seconds), Stage(few, 0.4 * seconds))


# The limits are generous: they say that something is broken, on any machine; give your own for yours. Above the knee
# waiting is what has to happen, so ramp and spike have none for latency.
_PURPOSES: dict[str, _Purpose] = {
    "smoke": _Purpose(3, 10, 0.2, _hold, Limits(p95_ms=2000)),
    "steady": _Purpose(20, 60, 0.5, _hold, Limits(p95_ms=1000, p99_ms=2000)),
    "ramp": _Purpose(64, 105, 0.0, _double, Limits(max_failed=0.01)),
    "spike": _Purpose(100, 60, 0.5, _spike, Limits(max_failed=0.01)),
    "soak": _Purpose(10, 1800, 0.5, _hold, Limits(max_failed=0.0001, p95_ms=1000, p99_ms=2000)),
}


def named(
    name: ShapeName, *, users: int | None = None, seconds: float | None = None, think_seconds: float | None = None
) -> Shape:
    """Give a shape by its name, with its own numbers or with these."""
    purpose = _PURPOSES[name]
    return Shape(
        name=name,
        stages=purpose.stages(users or purpose.users, seconds or purpose.seconds),
        think_seconds=purpose.think_seconds if think_seconds is None else think_seconds,
        limits=purpose.limits,
    )
