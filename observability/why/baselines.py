"""Simplified versions of two published methods, and a simple baseline, for comparison on the same evidence.

They always name a cause, even if nothing is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import isfinite, sqrt
from typing import TYPE_CHECKING

from observability.why.answer import Answer, Cause
from observability.why.requests import operation
from observability.why.statistics import mean, median, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from observability.why.evidence import Evidence
    from observability.why.requests import Operation, Request

_MOST_CAUSES = 5
_STEP = 15
_STANDARD_DEVIATIONS = 3

_MEASURES: Mapping[str, Callable[[list[tuple[float, bool]]], float]] = {
    "mean": lambda spans: mean(duration for duration, _ in spans),
    "median": lambda spans: quantile((duration for duration, _ in spans), 0.5),
    "latency": lambda spans: quantile((duration for duration, _ in spans), 0.9),
    "error": lambda spans: float(sum(failed for _, failed in spans)),
}


def metric_rise(evidence: Evidence) -> Answer:
    """Rank by how far a metric rose: BARO's robust score (Pham and others, FSE 2024), without its change point.

    The score is the highest value now minus the median before, divided by the spread before. It uses the same signals
    as RCAEval's BARO for several sources: for each service its metrics, such as processor and memory, and for each
    operation the mean, the median and the 90th percentile of its duration and how often it failed, in steps of 15
    seconds. As in RCAEval, a spread of 0 counts as 1, memory is in megabytes, and a signal that did not change at all
    before is dropped.
    """
    scores: dict[tuple[str, str, str], float] = {}

    def rate(service: str, name: str, kind: str, before: list[float], now: list[float]) -> None:
        if before and now:
            spread = (quantile(before, 0.75) - quantile(before, 0.25)) or 1.0
            score = (max(now) - median(before)) / spread
            scores[service, name, kind] = max(scores.get((service, name, kind), score), score)

    for signal, series in evidence.signals:
        unit = 1e6 if signal.unit == "bytes" else 1.0
        for one in series:
            before, now = (
                [value / unit for value in one.between(start, end) if isfinite(value)]
                for start, end in ((evidence.before, evidence.since), (evidence.since, evidence.at))
            )
            if len(set(before)) > 1:
                rate(signal.service or one.labels.get("job", ""), "", signal.kind, before, now)
    steps_before = _stepped(_before(evidence), evidence.before)
    steps_now = _stepped(_now(evidence), evidence.since)
    for name in dict.fromkeys(name for step in steps_now for name in step):
        for kind, measure in _MEASURES.items():
            rate(
                name.service,
                name.name,
                kind,
                [measure(step[name]) for step in steps_before if name in step],
                [measure(step[name]) for step in steps_now if name in step],
            )
    return _ranked(scores)


def trace_rca(evidence: Evidence) -> Answer:
    """Rank operations as TraceRCA does (Li and others, IWQoS 2021): support and confidence of being abnormal.

    A span is abnormal if its duration, or its failure as 0 or 1, exceeds the operation's earlier mean by more than
    three standard deviations. (The paper uses more metrics of a call; RCAEval's version uses only the duration.)
    """
    durations: dict[Operation, list[float]] = defaultdict(list)
    failures: dict[Operation, list[float]] = defaultdict(list)
    for request in _before(evidence):
        for span in request.trace.spans:
            durations[operation(span)].append(float(span.duration))
            failures[operation(span)].append(float(span.failed))
    slow = {one: _limit(those) for one, those in durations.items()}
    failed = {one: _limit(those) for one, those in failures.items()}
    every: Counter[Operation] = Counter()
    abnormal: Counter[Operation] = Counter()
    errors: Counter[Operation] = Counter()
    for request in _now(evidence):
        for span in request.trace.spans:
            one = operation(span)
            fails = span.failed > failed.get(one, 0.0)
            every[one] += 1
            errors[one] += fails
            abnormal[one] += fails or span.duration > slow.get(one, float("inf"))
    total = sum(abnormal.values())
    scores = {}
    for one, count in abnormal.items():
        if count:
            support, confidence = count / total, count / every[one]
            kind = "error" if errors[one] * 2 > count else "latency"
            scores[one.service, one.name, kind] = 2 * support * confidence / (support + confidence)
    return _ranked(scores)


def slowest_span(evidence: Evidence) -> Answer:
    """Rank operations by their own time, summed over all requests now."""
    scores: dict[tuple[str, str, str], float] = defaultdict(float)
    for request in _now(evidence):
        for one, own in request.own.items():
            scores[one.service, one.name, "latency"] += own
    return _ranked(scores)


BASELINES: Mapping[str, Callable[[Evidence], Answer]] = {
    "metric rise (BARO)": metric_rise,
    "operations (TraceRCA)": trace_rca,
    "slowest span": slowest_span,
}


def _ranked(scores: Mapping[tuple[str, str, str], float]) -> Answer:
    """Return the operations with the highest scores, each with its worst score only; equal scores sorted by name."""
    best: dict[tuple[str, str], Cause] = {}
    for (service, name, kind), score in sorted(scores.items(), key=lambda one: (-one[1], one[0])):
        best.setdefault((service, name), Cause(service=service, operation=name, kind=kind, impact=score))
    causes = list(best.values())[:_MOST_CAUSES]
    return Answer(state="wrong" if causes else "well", causes=causes)


def _now(evidence: Evidence) -> list[Request]:
    return [request for journey in evidence.journeys.values() for request in journey.now.requests]


def _before(evidence: Evidence) -> list[Request]:
    return [request for journey in evidence.journeys.values() for request in journey.usual]


def _limit(before: list[float]) -> float:
    middle = mean(before)
    return middle + _STANDARD_DEVIATIONS * sqrt(mean((value - middle) ** 2 for value in before))


def _stepped(those: list[Request], start: float) -> list[dict[Operation, list[tuple[float, bool]]]]:
    """Return duration and failure of all spans, grouped by the time step of their trace's start and by operation."""
    found: dict[int, dict[Operation, list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for request in those:
        step = found[int((request.root.start / 1e6 - start) // _STEP)]
        for span in request.trace.spans:
            step[operation(span)].append((float(span.duration), span.failed))
    return list(found.values())
