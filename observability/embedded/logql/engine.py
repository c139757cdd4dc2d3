"""Computes queries: log lines grouped into streams, or series of samples."""

from __future__ import annotations

import math
import operator
import time
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, Protocol, assert_never

import orjson

from observability.embedded.logql.arithmetic import COMPARING, OF_SERIES, OPERATIONS, OVER_TIME, Compute, per_second
from observability.embedded.logql.ast import (
    Binary,
    Grouping,
    Literal,
    LogQLError,
    LogQuery,
    Matching,
    Metric,
    RangeAggregation,
    Unwrap,
    Vector,
    VectorAggregation,
)
from observability.embedded.logql.line import ERROR, Line
from observability.embedded.logql.pipeline import Wants, compile_stages, wants, without_parsers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_SERIES = 500
"""In an answer: Loki's own limit."""

MAX_INNER_SERIES = 20_000
"""While computing: more would be a matter of memory. Loki has no such limit."""

MAX_INNER_POINTS = 2_000_000
"""While computing: series times steps."""

MAX_ANSWER = 16 * 1024 * 1024
"""Characters of the lines of an answer and of their metadata: a matter of memory too."""

_TOO_MANY_SERIES = (
    f"maximum number of series ({MAX_SERIES}) reached for a single query; consider reducing query cardinality by "
    "adding more specific stream selectors, reducing the time range, or aggregating results with functions like sum(), "
    "count() or topk()"
)
_TOO_MANY_INNER_SERIES = (
    f"maximum number of series ({MAX_INNER_SERIES}) reached while computing the query: take fewer labels with `keep`, "
    "or aggregate with sum by (...)"
)
_TOO_MANY_POINTS = (
    f"maximum number of points ({MAX_INNER_POINTS}, series times steps) reached while computing the query: ask for a "
    "larger step, take fewer labels with `keep`, or aggregate with sum by (...)"
)
_LOOKS = 256  # lines, or points, between two looks at the clock

Key = tuple[tuple[str, str], ...]
"""A series: its labels, in order."""

Points = list[float | None]
"""A value for each step, None where there is none."""

Series = dict[Key, Points]


class TimeLimit(RuntimeError):
    """The query took longer than it may."""


@dataclass
class Statistics:
    """What a query looked at."""

    lines: int = 0
    bytes: int = 0
    kept: int = 0


@dataclass
class Clock:
    """The time that a query may take, and what it did."""

    deadline: float = math.inf
    statistics: Statistics = field(default_factory=Statistics)

    def check(self) -> None:
        """Raise when the time is over.

        Raises:
            TimeLimit: It is.
        """
        if time.monotonic() > self.deadline:
            raise TimeLimit


class Source(Protocol):
    """Where lines come from."""

    def lines(self, query: LogQuery, start: int, end: int, *, backward: bool, wanted: Wants) -> Iterator[Line]:
        """Give the lines of the selector's streams with `start <= timestamp < end`.

        The stages are a hint: a line that they would remove may be left out.
        """


@dataclass(frozen=True)
class Steps:
    """The times of a range query, in nanoseconds: from `start` to `end`, both included."""

    start: int
    end: int
    step: int

    def __len__(self) -> int:
        return (self.end - self.start) // self.step + 1

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end + 1, self.step))


def reach(metric: Metric) -> int:
    """Give how far before its first step a metric looks, in nanoseconds."""
    match metric:
        case RangeAggregation():
            return metric.range_ns + metric.offset_ns
        case VectorAggregation():
            return reach(metric.inner)
        case Binary():
            return max(reach(metric.left), reach(metric.right))
        case _:
            return 0


def select_lines(  # noqa: PLR0913  # what Loki's API takes
    source: Source, query: LogQuery, start: int, end: int, *, limit: int, backward: bool, interval: int, clock: Clock
) -> list[Line]:
    """Give the lines that a log query asks for, in order of time."""
    found: list[Line] = []
    size = 0
    for line in _run(source, query, start, end, backward=backward, clock=clock):
        if interval and found and abs(line.timestamp - found[-1].timestamp) < interval:
            continue
        found.append(line)
        size += len(line.text) + sum(map(len, line.metadata.values()))
        if size > MAX_ANSWER:
            raise LogQLError(f"the lines are larger than {MAX_ANSWER} characters together: ask for fewer by `limit`")
        if len(found) == limit:
            break
    return found


def _run(  # noqa: PLR0913  # as select_lines
    source: Source,
    query: LogQuery,
    start: int,
    end: int,
    *,
    clock: Clock,
    backward: bool = False,
    needed: frozenset[str] | None = None,
    in_order: bool = True,
    text: bool = True,
) -> Iterator[Line]:
    stages = without_parsers(query.stages, needed)
    steps = compile_stages(stages)
    wanted = wants(stages, needed)
    wanted = replace(wanted, text=text or wanted.text, in_order=in_order)
    statistics = clock.statistics
    for line in source.lines(query, start, end, backward=backward, wanted=wanted):
        statistics.lines += 1
        statistics.bytes += len(line.text)
        if not statistics.lines % _LOOKS:
            clock.check()
        for step in steps:
            if not step(line):
                break
        else:
            statistics.kept += 1
            yield line


class Evaluation:
    """Computes a metric query at the times of `steps`."""

    def __init__(self, source: Source, steps: Steps, clock: Clock) -> None:
        self._source = source
        self._steps = steps
        self._clock = clock
        self._top: Metric | None = None

    def run(self, metric: Metric) -> Series | float:
        """Compute it: a number, or its series.

        Raises:
            LogQLError: The data does not allow it.
            TimeLimit: It took too long.
        """
        self._top = metric
        result = self._evaluate(metric)
        if isinstance(result, dict):
            result = {key: points for key, points in result.items() if any(point is not None for point in points)}
            if len(result) > MAX_SERIES:
                raise LogQLError(_TOO_MANY_SERIES)
        return result

    def _evaluate(self, metric: Metric) -> Series | float:
        self._clock.check()
        match metric:
            case Literal(value):
                return value
            case Vector(value):
                return {(): [value] * len(self._steps)}
            case RangeAggregation():
                return self._aggregate_range(metric, metric.grouping)
            case VectorAggregation():
                return self._aggregate_series(metric)
            case Binary():
                return self._binary(metric)
            case _:
                assert_never(metric)

    # --- over time ---

    def _aggregate_range(self, metric: RangeAggregation, grouping: Grouping | None, *, summed: bool = False) -> Series:
        unwrapped = any(isinstance(stage, Unwrap) for stage in metric.query.stages)
        if metric.operation == "absent_over_time":
            return self._absent(metric)
        samples = self._samples(metric, grouping, summed=summed, unwrapped=unwrapped)
        compute = OVER_TIME[metric.operation]
        if metric.operation in {"rate", "bytes_rate"}:
            sums = unwrapped or metric.operation == "bytes_rate"
            compute = per_second("sum_over_time" if sums else "count_over_time", metric.range_ns)
        return {key: self._windows(metric, times, values, compute) for key, (times, values) in samples.items()}

    def _samples(
        self, metric: RangeAggregation, grouping: Grouping | None, *, summed: bool, unwrapped: bool
    ) -> dict[Key, tuple[array[int], array[float]]]:
        """Read the lines of all windows at once, and give the samples of each series in order of time."""
        needed = frozenset(grouping.labels) if grouping and not grouping.without else None
        if summed and grouping is None:
            needed = frozenset()
        start = self._steps.start - metric.offset_ns - metric.range_ns + 1
        end = self._steps.end - metric.offset_ns + 1
        series: dict[Key, tuple[array[int], array[float]]] = {}
        of_size = metric.operation in {"bytes_over_time", "bytes_rate"}
        names = None if needed is None else sorted(needed)
        most, refusal = self._bound(metric)
        lines = _run(
            self._source, metric.query, start, end, clock=self._clock, needed=needed, in_order=False, text=of_size
        )
        for line in lines:
            if line.error:
                _refuse_line(line)
            if names is None:
                key = _key(line.labels(), grouping)
            else:
                key = tuple([(name, value) for name in names if (value := line.get(name))])
            samples = series.get(key)
            if samples is None:
                if len(series) >= most:
                    raise LogQLError(refusal)
                samples = series[key] = (array("q"), array("d"))
            samples[0].append(line.timestamp)
            if unwrapped:
                samples[1].append(line.value or 0.0)
            else:
                samples[1].append(float(len(line.text.encode())) if of_size else 1.0)
        return {key: _in_order(*samples) for key, samples in series.items()}

    def _bound(self, metric: RangeAggregation) -> tuple[int, str]:
        """Give how many series there may be, and what to say of more: before the work of all their windows is done."""
        most, refusal = MAX_INNER_SERIES, _TOO_MANY_INNER_SERIES
        if MAX_INNER_POINTS // len(self._steps) < most:
            most, refusal = MAX_INNER_POINTS // len(self._steps), _TOO_MANY_POINTS
        # Each series that it reads is one of the answer, where no line lies between two windows.
        answered = metric is self._top and metric.range_ns >= self._steps.step
        return (MAX_SERIES, _TOO_MANY_SERIES) if answered and most > MAX_SERIES else (most, refusal)

    def _windows(self, metric: RangeAggregation, times: array[int], values: array[float], compute: Compute) -> Points:
        """Compute a value for each step's window, which is open at its old end and closed at its new one."""
        points: Points = []
        low = high = 0
        for number, step in enumerate(self._steps):
            if not number % _LOOKS:
                self._clock.check()
            now = step - metric.offset_ns
            high = bisect_right(times, now, high)
            low = bisect_right(times, now - metric.range_ns, low)
            points.append(compute(values, low, high, metric.parameter) if high > low else None)
        return points

    def _absent(self, metric: RangeAggregation) -> Series:
        samples = self._samples(metric, Grouping(), summed=True, unwrapped=False)
        times, values = samples.get((), (array("q"), array("d")))
        present = self._windows(metric, times, values, OVER_TIME["count_over_time"])
        # The labels that a series would have had: those that the selector asks for by `=`.
        names = [matcher.name for matcher in metric.query.matchers]
        labels = {
            matcher.name: matcher.value
            for matcher in metric.query.matchers
            if matcher.operator == "=" and names.count(matcher.name) == 1
        }
        return {_key(labels, None): [1.0 if point is None else None for point in present]}

    # --- over series ---

    def _aggregate_series(self, metric: VectorAggregation) -> Series:
        inner = metric.inner
        if (
            metric.operation == "sum"
            and isinstance(inner, RangeAggregation)
            and inner.operation in {"count_over_time", "rate", "bytes_over_time", "bytes_rate", "sum_over_time"}
        ):
            # Summing up while reading needs the memory of the answer, not that of every series; and Loki does so,
            # which shows: labels that nobody asks for are not even parsed.
            return self._aggregate_range(inner, metric.grouping, summed=True)
        series = self._evaluate(inner)
        if isinstance(series, float):
            raise LogQLError(f"parse error : {metric.operation} needs a vector, not a number")
        if metric.operation in {"sort", "sort_desc"}:
            return series
        groups: dict[Key, list[Key]] = {}
        for key in sorted(series):
            groups.setdefault(_key(dict(key), metric.grouping or Grouping()), []).append(key)
        if metric.parameter is not None:
            return self._best(series, groups, metric.parameter, largest=metric.operation == "topk")
        compute = OF_SERIES[metric.operation]
        return {
            group: [
                compute(present) if (present := [point for point in column if point is not None]) else None
                for column in self._columns([series[key] for key in keys])
            ]
            for group, keys in groups.items()
        }

    def _columns(self, rows: list[Points]) -> Iterator[tuple[float | None, ...]]:
        for number, column in enumerate(zip(*rows, strict=True)):
            if not number % _LOOKS:
                self._clock.check()
            yield column

    def _best(self, series: Series, groups: dict[Key, list[Key]], count: int, *, largest: bool) -> Series:
        result: Series = {key: [None] * len(self._steps) for key in series}
        for keys in groups.values():
            for step, column in enumerate(self._columns([series[key] for key in keys])):
                present = [(point, key) for key, point in zip(keys, column, strict=True) if point is not None]
                present.sort(key=lambda pair: pair[0], reverse=largest)
                for point, key in present[:count]:
                    result[key][step] = point
        return result

    # --- operations ---

    def _binary(self, metric: Binary) -> Series | float:
        left, right = self._evaluate(metric.left), self._evaluate(metric.right)
        if metric.operator in {"and", "or", "unless"}:
            if isinstance(left, float) or isinstance(right, float):
                raise LogQLError(f"parse error : unexpected literal for a leg of binary operation ({metric.operator})")
            return self._set_operation(metric, left, right)
        compute = OPERATIONS[metric.operator]
        compares = metric.operator in COMPARING
        if isinstance(left, float) and isinstance(right, float):
            return float(compute(left, right))
        if isinstance(left, dict) and isinstance(right, dict):
            return self._pairwise(metric, left, right)

        def point(value: float) -> float | None:
            result = compute(value, right) if isinstance(right, float) else compute(left, value)  # type: ignore[arg-type]
            if compares and not metric.as_bool:
                return value if result else None
            return result

        series = left if isinstance(left, dict) else right
        assert isinstance(series, dict)  # noqa: S101  # for the type checker: one side is a number, the other is not
        return {key: [None if value is None else point(value) for value in points] for key, points in series.items()}

    def _pairwise(self, metric: Binary, left: Series, right: Series) -> Series:
        partners: dict[Key, list[Key]] = {}
        for key in right:
            partners.setdefault(_signature(key, metric.matching), []).append(key)
        result: Series = {}
        compute = OPERATIONS[metric.operator]
        filters = metric.operator in COMPARING and not metric.as_bool
        for key, points in left.items():
            signature = _signature(key, metric.matching)
            matched = [right[partner] for partner in partners.get(signature, ())]
            if not matched:
                continue
            name = key if filters and not metric.matching.on and not metric.matching.labels else signature
            target = result.setdefault(name, [None] * len(self._steps))
            for step, (value, column) in enumerate(zip(points, self._columns(matched), strict=True)):
                others = [point for point in column if point is not None]
                if value is None or not others:
                    continue
                if len(others) > 1 or target[step] is not None:
                    raise LogQLError(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right), "
                        "which is not supported by the embedded backend"
                    )
                outcome = compute(value, others[0])
                if filters:
                    target[step] = value if outcome else None
                else:
                    target[step] = outcome
        return result

    def _set_operation(self, metric: Binary, left: Series, right: Series) -> Series:
        present = _presence(right if metric.operator != "or" else left, metric.matching)
        empty: list[bool] = [False] * len(self._steps)

        def filtered(series: Series, *, where: bool) -> Series:
            return {
                key: [
                    point if there is where else None
                    for point, there in zip(points, present.get(_signature(key, metric.matching), empty), strict=True)
                ]
                for key, points in series.items()
            }

        if metric.operator == "and":
            return filtered(left, where=True)
        if metric.operator == "unless":
            return filtered(left, where=False)
        result = dict(left)
        for key, points in filtered(right, where=False).items():
            mine = result.get(key)
            result[key] = (
                points if mine is None else [a if a is not None else b for a, b in zip(mine, points, strict=True)]
            )
        return result


def _in_order(times: array[int], values: array[float]) -> tuple[array[int], array[float]]:
    """Order samples by time; those of several streams come one stream after the other."""
    if all(map(operator.le, times, islice(times, 1, None))):
        return times, values
    order = sorted(range(len(times)), key=times.__getitem__)
    return array("q", map(times.__getitem__, order)), array("d", map(values.__getitem__, order))


def _presence(series: Series, matching: Matching) -> dict[Key, list[bool]]:
    found: dict[Key, list[bool]] = {}
    for key, points in series.items():
        there = found.setdefault(_signature(key, matching), [False] * len(points))
        for step, point in enumerate(points):
            there[step] = there[step] or point is not None
    return found


def _key(labels: Mapping[str, str], grouping: Grouping | None) -> Key:
    if grouping is None:
        return tuple(sorted((name, value) for name, value in labels.items() if value))
    if grouping.without:
        return tuple(sorted((n, value) for n, value in labels.items() if value and n not in grouping.labels))
    return tuple((name, value) for name in sorted(set(grouping.labels)) if (value := labels.get(name)))


def _signature(key: Key, matching: Matching) -> Key:
    if matching.on:
        return tuple(pair for pair in key if pair[0] in matching.labels)
    if matching.labels:
        return tuple(pair for pair in key if pair[0] not in matching.labels)
    return key


def label_text(labels: Mapping[str, str]) -> str:
    """Write labels as Prometheus does: `{a="b", c="d"}`."""
    return "{" + ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in sorted(labels.items())) + "}"


def _refuse_line(line: Line) -> NoReturn:
    raise LogQLError(
        f"pipeline error: '{line.error}' for series: '{label_text(line.labels())}'.\n"
        f'Use a label filter to intentionally skip this error. (e.g | {ERROR}!="{line.error}").\n'
        f'To skip all potential errors you can match empty errors.(e.g {ERROR}="")\n'
        f'The label filter can also be specified after unwrap. (e.g | unwrap latency | {ERROR}="" )'
    )
