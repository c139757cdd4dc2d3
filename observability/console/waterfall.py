"""A trace and its log lines as rows on one time axis, and what in it took the time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.story.spans import DEEPEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from observability.story.backends import Line
    from observability.story.spans import Span, Trace

WIDTH = 1000
"""Units of the axis in the drawing."""
_TICKS = 5
_MOST_ROWS = 5000
_WORTH_A_LINE = 5


@dataclass(kw_only=True)
class Row:
    """A span or a log line; what is drawn is in units of the axis."""

    depth: int
    x: float
    width: float = 0
    span: Span | None = None
    line: Line | None = None
    critical: list[tuple[float, float]] = field(default_factory=list)
    """The parts of a span that the whole trace waited for: begin and width."""
    offset: float = 0
    """Microseconds after the first span's begin."""


@dataclass(kw_only=True)
class Share:
    """How much of a trace's time was spent in a span itself, while everything waited for it."""

    span: Span
    microseconds: int
    share: float


@dataclass(kw_only=True)
class Waterfall:
    """What the page draws."""

    trace: Trace
    rows: Sequence[Row]
    ticks: Sequence[float]
    """Microseconds after the start."""
    shares: Sequence[Share]
    services: Sequence[str]
    hidden: int
    """Rows that are too many to draw."""


def draw(trace: Trace, lines: Sequence[Line] = ()) -> Waterfall:
    """Put spans and log lines in their places."""
    start, whole = trace.start, max(trace.duration, 1)
    critical = critical_path(trace)
    of_span: dict[str, list[Line]] = defaultdict(list)
    known = {span.span_id for span in trace.spans}
    for line in lines:
        of_span[line.span_id if line.span_id in known else ""].append(line)

    def place(microseconds: float) -> float:
        return round(min(max(microseconds / whole, 0), 1) * WIDTH, 2)

    def row_of(line: Line, depth: int) -> Row:
        offset = line.time / 1000 - start
        return Row(depth=depth, x=place(offset), line=line, offset=offset)

    rows = []
    for span, position in trace.tree():
        depth, offset = min(position.depth, DEEPEST), span.start - start
        rows.append(
            Row(
                depth=depth,
                x=place(offset),
                width=max(place(offset + span.duration) - place(offset), 1.5),
                span=span,
                offset=offset,
                critical=[
                    (place(begin - start), place(end - start) - place(begin - start))
                    for begin, end in critical.get(id(span), ())
                ],
            )
        )
        rows += [row_of(line, min(depth + 1, DEEPEST)) for line in of_span.pop(span.span_id, ())]
    rows += [row_of(line, 0) for others in of_span.values() for line in others]
    spent = sorted(
        (
            Share(span=span, microseconds=(took := sum(end - begin for begin, end in parts)), share=took / whole)
            for span in trace.spans
            if (parts := critical.get(id(span)))
        ),
        key=lambda one: -one.microseconds,
    )
    return Waterfall(
        trace=trace,
        rows=rows[:_MOST_ROWS],
        ticks=[whole * tick / (_TICKS - 1) for tick in range(_TICKS)],
        shares=spent[:_WORTH_A_LINE],
        services=list(dict.fromkeys(span.service for span in trace.spans)),
        hidden=max(len(rows) - _MOST_ROWS, 0),
    )


@dataclass(kw_only=True)
class Chosen:
    """What a reader picked: a span and its log lines, or log lines of no span that is there.

    Of a span without log lines these are the lines of the nearest span above it that has some.
    """

    trace: Trace
    span: Span | None
    lines: Sequence[Line]
    above: Span | None
    """The span whose lines they are, if it is another one."""
    line: int
    """When the line that was picked was written; 0 where a span was."""


def choose(stories: Iterable[tuple[Trace, Sequence[Line]]], span_id: str, written: str) -> Chosen | None:
    """Find what the address names, by a span's id, or a log line's time in nanoseconds."""
    for trace, lines in stories:
        known = {span.span_id: span for span in trace.spans}
        span = known.get(span_id)
        if span is None:
            own = [line for line in lines if written and str(line.time) == written]
            if own:
                return Chosen(trace=trace, span=None, lines=own, above=None, line=own[0].time)
            continue
        of_span: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            of_span[line.span_id].append(line)
        above: Span | None = known.pop(span_id)
        while above and above.span_id not in of_span:
            above = known.pop(above.parent_id, None)
        own = of_span[above.span_id] if above else []
        picked = next((line.time for line in own if str(line.time) == written), 0)
        return Chosen(trace=trace, span=span, lines=own, above=None if above is span else above, line=picked)
    return None


def critical_path(trace: Trace) -> dict[int, list[tuple[int, int]]]:
    """Find which span the whole trace waited for, at each moment from its first span's begin to that span's end.

    It goes backwards: from a span's end to the child that ended last before it, into that, and on from its begin.
    What lies between two children is the span's own. Children that outlive their parent are not waited for.

    Returns:
        By `id` of a span its parts of the path, begin and end in microseconds since 1970.
    """
    children: dict[str, list[Span]] = defaultdict(list)
    walk = [span for span, _ in trace.tree()]
    for span in walk[1:]:
        children[span.parent_id].append(span)
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    seen: set[int] = set()
    ahead = [(walk[0], walk[0].start, walk[0].start + walk[0].duration)] if walk else []
    while ahead:
        span, begin, cursor = ahead.pop()
        seen.add(id(span))
        for child in sorted(children[span.span_id], key=lambda one: one.start + one.duration, reverse=True):
            end = child.start + child.duration
            if id(child) in seen or end > cursor or child.start < begin:
                continue
            if end < cursor:
                found[id(span)].append((end, cursor))
            ahead.append((child, child.start, end))
            seen.add(id(child))
            cursor = child.start
        if begin < cursor:
            found[id(span)].append((begin, cursor))
    return dict(found)


@dataclass(kw_only=True)
class Compared:
    """One operation in two traces; times in microseconds, its own without its children."""

    service: str
    name: str
    counts: tuple[int, int]
    times: tuple[int, int]
    errors: tuple[int, int]

    @property
    def change(self) -> int:
        """How much more time the second one took."""
        return self.times[1] - self.times[0]


def compare(left: Trace, right: Trace) -> list[Compared]:
    """Put the operations of two traces side by side, those that changed most first."""
    sums = (_by_operation(left), _by_operation(right))
    names = dict.fromkeys([*sums[0], *sums[1]])
    rows = []
    for service, name in names:
        one, two = (each.get((service, name), (0, 0, 0)) for each in sums)
        rows.append(
            Compared(
                service=service, name=name, counts=(one[0], two[0]), times=(one[1], two[1]), errors=(one[2], two[2])
            )
        )
    return sorted(rows, key=lambda row: -abs(row.change))


def _by_operation(trace: Trace) -> dict[tuple[str, str], tuple[int, int, int]]:
    below: dict[str, int] = defaultdict(int)
    for span in trace.spans:
        below[span.parent_id] += span.duration
    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    for span in trace.spans:
        count, took, errors = sums.get((span.service, span.name), (0, 0, 0))
        own = max(span.duration - below[span.span_id], 0)
        sums[span.service, span.name] = (count + 1, took + own, errors + span.failed)
    return sums
