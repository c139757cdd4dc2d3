"""Fetches all telemetry of a time from Jaeger, Loki and Prometheus, in pieces of a few seconds.

If a result reaches its limit or is too large, the time is halved. Floods are truncated; see `MOST_A_SECOND`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from observability.story.apis import Jaeger, Prometheus
from observability.story.asking import ask
from observability.story.backends import understood
from observability.story.errors import StoryError
from observability.story.window import Window
from scenarios.dataset import disguise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scenarios.place import Place

_T = TypeVar("_T")

MOST_A_SECOND = 1000
"""The most spans, and log lines, that are kept per second; a healthy shop under a scenario's load has some 150."""
MOST_SERIES = 2000
"""The most series of a metric that are kept."""
_SLICE_SECONDS, _LEAST_SECONDS = 5.0, 0.2
_TRACES, _LINES = 1000, 5000
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A log line from Loki."""

    time: int
    """Nanoseconds since 1970."""
    labels: Mapping[str, str]
    """The labels of its stream, and its structured metadata."""
    text: str


@dataclass
class Counts:
    """Counts what was kept.

    Attributes:
        found: The number of kept items, by kind.
        cut: The kinds of which some items were not kept.
    """

    found: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    def add(self, what: str, number: int) -> None:
        """Add to a kind's number."""
        self.found[what] = self.found.get(what, 0) + number


class Gathering:
    """All telemetry of a time.

    Args:
        place: The backends' addresses.
        window: The time.
        with_flags: Whether to keep what reveals a simulated fault. A real fault has no such signs.
    """

    def __init__(self, place: Place, window: Window, *, with_flags: bool = False) -> None:
        self._jaeger = Jaeger(place.jaeger, seconds=_ANSWER_SECONDS)
        self._prometheus = Prometheus(place.prometheus, _ANSWER_SECONDS)
        self._loki = place.loki
        self._window = window
        self.with_flags = with_flags
        self.counts = Counts()

    def traces(self) -> Iterator[dict[str, Any]]:
        """Yield the traces as Jaeger returns them, each once and complete."""
        services = self._jaeger.services()
        seen: set[str] = set()
        for start, end in self._slices():
            left = int(MOST_A_SECOND * (end - start))
            for service in services:
                for trace in _halved(partial(self._search, service), start, end, _TRACES):
                    if trace["traceID"] in seen:
                        continue
                    if left <= 0:
                        self.counts.cut.add("spans")
                        break
                    seen.add(trace["traceID"])
                    left -= len(trace["spans"])
                    self.counts.add("traces", 1)
                    self.counts.add("spans", len(trace["spans"]))
                    yield trace if self.with_flags else disguise.trace(trace)

    def lines(self) -> Iterator[list[Line]]:
        """Yield the log lines, the oldest first, in lists of some seconds."""
        for start, end in self._slices():
            left = int(MOST_A_SECOND * (end - start))
            found: list[Line] = []
            for line in _halved(self._lines, start, end, _LINES):
                if len(found) == left:
                    self.counts.cut.add("lines")
                    break
                text = line.text if self.with_flags else disguise.line(line.text)
                if text is not None:
                    found.append(replace(line, text=text))
            self.counts.add("lines", len(found))
            yield sorted(found, key=lambda line: line.time)

    def metrics(self) -> list[str]:
        """Return the names of all metrics."""
        names = self._prometheus.label_values("__name__", '{__name__=~".+"}')
        return [name for name in names if self.with_flags or not disguise.metric(name)]

    def samples(self, name: str) -> list[dict[str, Any]]:
        """Return a metric's series with all scraped samples, as `metric` and `values`, like Prometheus."""
        start, end = self._window.start, self._window.end
        found = self._prometheus.now(f'{{__name__="{name}"}}[{math.ceil(end - start)}s]', end)
        if len(found) > MOST_SERIES:
            self.counts.cut.add("series")
        kept = found[:MOST_SERIES]
        for one in kept:
            one["values"] = [(at, value) for at, value in one["values"] if start <= at <= end]
        kept = [one for one in kept if one["values"]]
        self.counts.add("series", len(kept))
        self.counts.add("samples", sum(len(one["values"]) for one in kept))
        return kept

    def types(self) -> dict[str, tuple[str, str]]:
        """Return type and help text of metric families, by name."""
        found = ask("Prometheus", f"{self._prometheus.root}/api/v1/metadata", seconds=_ANSWER_SECONDS).json()
        with understood("Prometheus"):
            return {name: (one[0]["type"], one[0]["help"]) for name, one in found["data"].items()}

    def over(self, query: str, step: int) -> list[dict[str, Any]]:
        """Return a query's series over the time."""
        return self._prometheus.over(query, self._window, step)

    @property
    def window(self) -> Window:
        """The time."""
        return self._window

    def _slices(self) -> Iterator[tuple[float, float]]:
        start, end = self._window.start, self._window.end
        while start < end:
            yield start, min(start + _SLICE_SECONDS, end)
            start += _SLICE_SECONDS

    def _search(self, service: str, start: float, end: float) -> list[dict[str, Any]]:
        fields = {"service": service, "limit": str(_TRACES), **Window(start, end).microseconds()}
        return self._jaeger.search(fields)

    def _lines(self, start: float, end: float) -> list[Line]:
        fields = {
            "query": '{service_namespace="shop"}',
            "limit": str(_LINES),
            "direction": "forward",
            **Window(start, end).nanoseconds(),
        }
        answer = ask("Loki", f"{self._loki}/loki/api/v1/query_range", fields, seconds=_ANSWER_SECONDS)
        if answer.status != HTTPStatus.OK:
            raise StoryError(f"Loki's API at {self._loki} answers {answer.status}: {answer.text()}")
        with understood("Loki"):
            return [
                Line(time=int(at), labels=stream["stream"], text=said)
                for stream in answer.json()["data"]["result"]
                for at, said, *_ in stream["values"]
            ]


def _halved(ask_for: Callable[[float, float], Sequence[_T]], start: float, end: float, limit: int) -> Iterator[_T]:
    """Yield the results of a time; halve it while there is too much for one query."""
    least = end - start <= _LEAST_SECONDS
    try:
        found = ask_for(start, end)
    except StoryError:
        if least:
            raise
    else:
        if least or len(found) < limit:
            yield from found
            return
    middle = (start + end) / 2
    yield from _halved(ask_for, start, middle, limit)
    yield from _halved(ask_for, middle, end, limit)
