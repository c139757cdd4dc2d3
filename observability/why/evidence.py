"""The evidence: what the backends returned, before the analysis."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from observability.story.backends import Line
    from observability.why.requests import Operation, Request
    from observability.why.signals import Signal


_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Measure:
    """An expression, and which of its values are bad; without an operator, all values are."""

    query: str
    operator: str = ""
    limit: float = 0.0

    def holds(self, value: float) -> bool:
        """Return whether a value is bad."""
        return not self.operator or _HOLDS[self.operator](value, self.limit)


@dataclass(kw_only=True)
class Sample:
    """The result of a search, and the time that it covers, which is less if the search reached its limit."""

    requests: Sequence[Request] = ()
    seconds: float = 0.0
    query: str = ""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.requests) / self.seconds if self.seconds > 0 else 0.0


@dataclass(kw_only=True)
class Journey:
    """One kind of request, now and before."""

    now: Sample = field(default_factory=Sample)
    before: list[Sample] = field(default_factory=list)
    """Several samples, spread over the time before."""
    slow_now: Sample = field(default_factory=Sample)
    """Requests now that took longer than `threshold`."""
    slow_before: Sample = field(default_factory=Sample)
    threshold: float = float("inf")
    """Microseconds."""

    @property
    def usual(self) -> list[Request]:
        """All requests of the time before."""
        return [request for sample in self.before for request in sample.requests]

    @property
    def rate_before(self) -> float:
        """Requests per second in the time before."""
        seconds = sum(sample.seconds for sample in self.before)
        return len(self.usual) / seconds if seconds > 0 else 0.0


@dataclass(kw_only=True)
class Series:
    """A time series: labels, and values by time."""

    labels: dict[str, str]
    points: Sequence[tuple[float, float]]

    def between(self, start: float, end: float) -> list[float]:
        """Return the values between two times."""
        return [value for time, value in self.points if start <= time <= end]


Event = tuple[str, str, str, str]
"""A kind of log line: service, level, event, and its subject (a dependency, an exception's type)."""


@dataclass(kw_only=True)
class Evidence:
    """All evidence. Times are in seconds since 1970."""

    at: float
    since: float
    """The time since which there may be trouble."""
    before: float
    """The beginning of the time before, which counts as healthy."""
    journeys: dict[Operation, Journey] = field(default_factory=dict)
    probed: list[Request] = field(default_factory=list)
    """The newest traces of each service, of any kind."""
    probes: dict[str, str] = field(default_factory=dict)
    """For each service, the search that found its newest traces."""
    services_query: str = ""
    """The query for the names of services."""
    failed_now: dict[str, Sample] = field(default_factory=dict)
    """For each service, traces with a failed span of it."""
    failed_before: dict[str, Sample] = field(default_factory=dict)
    signals: list[tuple[Signal, list[Series]]] = field(default_factory=list)
    up: list[Series] = field(default_factory=list)
    gateway_up: list[Series] = field(default_factory=list)
    started: list[Series] = field(default_factory=list)
    events_now: dict[Event, float] = field(default_factory=dict)
    """Log lines per second."""
    events_before: dict[Event, float] = field(default_factory=dict)
    events_query: str = ""
    """The query for warnings and errors now."""
    usual_events_query: str = ""
    """The query for all other lines now."""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    expressions: dict[str, str] = field(default_factory=dict)
    """Expressions of alerts, by an alert's name, and by its name and severity."""
    measured: dict[str, list[tuple[Measure, list[Series]]]] = field(default_factory=dict)
    """For each expression of a pending or firing alert: its measures, and their series over the whole time."""
    lines: Sequence[Line] = ()
    missing: list[str] = field(default_factory=list)

    def query_of(self, event: Event) -> str:
        """Return the query that counts log lines of this kind."""
        return self.usual_events_query if event[1] in {"info", "debug"} else self.events_query

    @property
    def services(self) -> set[str]:
        """All services that have spans."""
        samples = [journey.now for journey in self.journeys.values()]
        samples += [sample for journey in self.journeys.values() for sample in journey.before]
        return {service for sample in samples for request in sample.requests for service in request.services}
