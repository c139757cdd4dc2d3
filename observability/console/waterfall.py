"""A trace and its log lines as rows on one time axis, and what in it took the time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.story.critical import critical_path
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
