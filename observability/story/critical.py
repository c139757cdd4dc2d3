"""What a trace waited for, and how two traces differ."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from observability.story.spans import Span, Trace

_TICK = 2000
"""Microseconds: two clocks that count in milliseconds may differ by so much, and mean the same moment."""


def critical_path(trace: Trace) -> dict[int, list[tuple[int, int]]]:
    """Find which span the whole trace waited for, at each moment from its first span's begin to that span's end.

    It goes backwards: from a span's end to the child that ended last before it, into that, and on from its begin.
    What lies between two children is the span's own. Children that outlive their parent are not waited for, but for
    two kinds, which are cut: what a call waited for until it gave up, and what is later by less than the clock of a
    parent that counts in milliseconds, as the gateway does.

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
            start, end = child.start, child.start + child.duration
            if end > cursor and (end - cursor <= _TICK or span.kind == "client"):
                end = cursor
            if begin - _TICK <= start < begin:
                start = begin
            if id(child) in seen or not begin <= start <= end <= cursor:
                continue
            if end < cursor:
                found[id(span)].append((end, cursor))
            ahead.append((child, start, end))
            seen.add(id(child))
            cursor = start
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
