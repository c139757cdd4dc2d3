"""The usual duration of a journey, and how its time is usually divided between operations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.why.statistics import mann_whitney, median, quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from observability.why.evidence import Journey
    from observability.why.requests import Operation, Request

ENOUGH = 8
"""The least number of requests from which usual times are computed."""
_SURE = 1e-4
_FELT = 30_000
"""Microseconds of extra time that a user may feel; less does not count as slow."""
_MUCH_FELT = 100_000


@dataclass
class Normal:
    """The usual times of a journey, in microseconds."""

    duration: float = 0.0
    tail: float = 0.0
    own: Mapping[Operation, float] = field(default_factory=dict)
    """For each operation, the median of its own time."""
    enough: bool = False


def normal(journey: Journey) -> Normal:
    """Return the usual times: the median over the slices before, so that trouble in some slices changes little."""
    samples = [sample.requests for sample in journey.before if len(sample.requests) >= ENOUGH]
    if not samples and len(journey.usual) >= ENOUGH:
        samples = [journey.usual]
    if not samples:
        return Normal()
    own: dict[Operation, float] = {}
    for one in {one for sample in samples for request in sample for one in request.own}:
        own[one] = median(median(request.own.get(one, 0) for request in sample) for sample in samples)
    return Normal(
        duration=median(median(request.root.duration for request in sample) for sample in samples),
        tail=median(quantile((request.root.duration for request in sample), 0.97) for sample in samples),
        own=own,
        enough=True,
    )


def pace(journeys: Mapping[Operation, Journey], usual: Mapping[Operation, Normal]) -> float:
    """Return how many times as slow everything is, as on a machine that is busy with other work.

    It is the median over the services, each with the median over its operations. So a fault in one or two services does
    not change it.
    """
    by_service: dict[str, list[float]] = defaultdict(list)
    for key, journey in journeys.items():
        if not usual[key].enough or len(journey.now.requests) < ENOUGH:
            continue
        for one, before in usual[key].own.items():
            if before >= 100:  # noqa: PLR2004  # less is too short to compare
                now = median(request.own.get(one, 0) for request in journey.now.requests)
                by_service[one.service].append(now / before)
    if len(by_service) < 3:  # noqa: PLR2004
        return 1.0
    return min(max(1.0, median(median(ratios) for ratios in by_service.values())), 10.0)


def threshold(now: Sequence[Request], before: Sequence[Request], usual: Normal, slower: float) -> float:
    """Return the duration above which a request is slow. It is lower if most requests became slower."""
    if not usual.enough:
        return float("inf")
    middle, tail = usual.duration * slower, usual.tail * slower
    times = [request.root.duration for request in now]
    if len(times) >= ENOUGH and median(times) > max(middle * 1.5, middle + _FELT):
        chance = mann_whitney(times, [request.root.duration * slower for request in before])
        if chance < _SURE:
            return max(middle * 1.4, middle + 0.8 * _FELT)
    return max(middle * 2.5, tail * 1.3, middle + _MUCH_FELT)
