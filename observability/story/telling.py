"""Puts a story together: asks until all that must be there is there, or the wait is over."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from local.errors import LocalError
from observability.story import backends
from observability.story.backends import Line
from observability.story.errors import StoryError
from observability.story.spans import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PAUSE_SECONDS = 0.1
_MARGIN_SECONDS = 300.0
"""How far before and after a trace's spans its log lines are looked for."""
_DAY_SECONDS = 86_400.0
_SAMPLED = 1
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")

_T = TypeVar("_T")


class Shop(Protocol):
    """Where orders are placed, and what keeps their telemetry."""

    @property
    def jaeger(self) -> str:
        """The root of Jaeger's API."""

    @property
    def loki(self) -> str:
        """The root of Loki's API."""

    def row(self, order_id: int) -> dict[str, Any]:
        """Give what is known of an order. Raises StoryError if there is none."""


@dataclass(kw_only=True)
class Chapter:
    """One trace and its log lines."""

    trace: Trace
    lines: Sequence[Line] = ()
    sampled: bool = True

    def missing(self) -> list[str]:
        """Say in plain words what must exist and is not there."""
        logged = {line.span_id for line in self.lines if line.event == "request.completed"}
        unlogged = (span for span in self.trace.spans if span.kind == "server" and span.span_id not in logged)
        silent = [f"the log line of {span.service}'s {span.name}" for span in unlogged]
        return [*(self.trace.missing() if self.sampled else ()), *silent]


@dataclass(kw_only=True)
class Story:
    """All that could be found out."""

    row: dict[str, Any] | None = None
    chapters: list[Chapter] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What must exist and was not there in time."""
    errors: list[str] = field(default_factory=list)
    """What could not be asked."""


def of_order(shop: Shop, order_id: int, wait_seconds: float) -> Story:
    """Tell an order's story.

    Args:
        shop: Where it was placed.
        order_id: Its id.
        wait_seconds: How long to wait for spans and log lines that are on their way.

    Raises:
        StoryError: There is no such order, or its row cannot be read.
    """
    teller = _Teller(shop)
    teller.read_row(order_id)
    return teller.tell(wait_seconds)


def of_trace(shop: Shop, trace_id: str, wait_seconds: float) -> Story:
    """Tell the story of a trace, and of the order that it is about, if it is about one.

    Args:
        shop: Where it was made.
        trace_id: Its id.
        wait_seconds: How long to wait for spans and log lines that are on their way.

    Raises:
        StoryError: Nothing is known of this trace.
    """
    teller = _Teller(shop)
    teller.name_trace(trace_id)
    story = teller.tell(wait_seconds)
    if not story.errors and not any(chapter.trace.spans or chapter.lines for chapter in story.chapters):
        raise StoryError(f"There is no trace {trace_id}: neither Jaeger nor Loki has anything of it.")
    return story


class _Teller:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._order_id: int | None = None
        self._row: dict[str, Any] | None = None
        self._named: dict[str, bool] = {}  # trace ids that somebody told us, and whether those traces are sampled
        self._errors: dict[str, None] = {}  # each once
        self._now = time.time()
        self._since = self._now - _DAY_SECONDS

    def name_trace(self, trace_id: str) -> None:
        self._named[trace_id] = True

    def read_row(self, order_id: int) -> None:
        row = self._shop.row(order_id)
        self._order_id, self._row = order_id, row
        # The column has no time zone, and is written in UTC.
        with contextlib.suppress(ValueError, OverflowError):  # the column can hold `infinity`, and years before Christ
            placed = datetime.fromisoformat(row["created_at"])
            self._since = (placed if placed.tzinfo else placed.replace(tzinfo=UTC)).timestamp() - _MARGIN_SECONDS
        if context := _TRACEPARENT.fullmatch(row.get("traceparent") or ""):
            self._named.setdefault(context[1], bool(int(context[2], 16) & _SAMPLED))

    def tell(self, wait_seconds: float) -> Story:
        deadline = time.monotonic() + wait_seconds
        while True:
            self._errors.clear()
            self._now = time.time()
            chapters = self._chapters()
            missing = [each for chapter in chapters for each in chapter.missing()]
            if not chapters:
                missing = [f"any trace of order {self._order_id}"]
            if not missing or self._errors or time.monotonic() >= deadline:
                break
            time.sleep(_PAUSE_SECONDS)
        if self._errors:  # what was not asked for is not missing
            missing = []
        return Story(row=self._row, chapters=chapters, missing=missing, errors=list(self._errors))

    def _chapters(self) -> list[Chapter]:
        """Find the traces that were named, and the others about the same order."""
        found = {trace_id: self._trace(trace_id) for trace_id in list(self._named)}
        about = next((order_id for trace in found.values() if (order_id := trace.order_id()) is not None), None)
        if not self._row and about is not None:
            self._try(lambda: self.read_row(about), None)
        found = {trace_id: self._trace(trace_id) for trace_id in self._named.keys() - found.keys()} | found
        if (order_id := self._order_id) is not None:
            until = self._now + _MARGIN_SECONDS
            others = self._try(
                lambda: backends.traces_of_order(self._shop.jaeger, order_id, self._since, until), list[Trace]()
            )
            found = {trace.trace_id: trace for trace in others} | found
        return [
            Chapter(trace=trace, lines=self._lines(trace), sampled=self._named.get(trace.trace_id, True))
            for trace in sorted(found.values(), key=lambda trace: trace.start or self._since * 1e6)
        ]

    def _trace(self, trace_id: str) -> Trace:
        return self._try(lambda: backends.trace(self._shop.jaeger, trace_id), Trace(trace_id))

    def _lines(self, trace: Trace) -> list[Line]:
        # A day: with an order of long ago Loki refuses to look through all the time since.
        since, until = self._since, min(self._now, self._since + _DAY_SECONDS) + _MARGIN_SECONDS
        if trace.spans:
            since = trace.start / 1e6 - _MARGIN_SECONDS
            until = (trace.start + trace.duration) / 1e6 + _MARGIN_SECONDS
        windows = [(max(since, 0), until)]
        if until - since > 2 * _DAY_SECONDS:  # clocks that are years apart
            windows = [(max(since, 0), since + _DAY_SECONDS), (until - _DAY_SECONDS, until)]
        found: list[Line] = []
        for begin, end in windows:
            ask = partial(backends.lines, self._shop.loki, trace.trace_id, begin, end)
            found += self._try(ask, list[Line]())
        return found

    def _try(self, ask: Callable[[], _T], otherwise: _T) -> _T:
        """Ask; what cannot be asked is told at the end, and the rest of the story goes on."""
        try:
            return ask()
        except LocalError as error:
            self._errors[str(error)] = None
            return otherwise
