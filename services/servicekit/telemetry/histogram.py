"""A histogram that costs a request next to nothing: Prometheus' text is made when it is asked for.

prometheus_client's own looks up its child, walks through the buckets and checks the exemplar's text at every
observation, some 15 us. What is exposed is the same.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from opentelemetry import trace
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar


class _Series:
    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0
        self.exemplars: list[tuple[trace.SpanContext, float, float] | None] = [None] * buckets


class Histogram(Collector):
    """Counts observations in buckets, with the last one that was recorded in a trace as each bucket's exemplar.

    Args:
        name: The metric's name, with its unit.
        documentation: What is measured.
        labels: The labels' names. Without any it is there from the start, at 0.
        bounds: The buckets' upper bounds but +Inf, ascending.
        registry: Where it is registered.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = tuple(bounds)
        self._bound_texts = (*(str(float(bound)) for bound in bounds), "+Inf")
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], _Series] = {}
        if not labels:
            self.begin(())
        registry.register(self)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Have these labels there at 0: the rate of a counter that appears at 1 misses the first."""
        with self._lock:
            self._of(labels)

    def observe(self, labels: tuple[str, ...], value: float, seen_in: trace.SpanContext | None = None) -> None:
        """Count a value.

        Args:
            labels: The labels' values, in the order of their names.
            value: What was measured.
            seen_in: The span that shows it, if there is one to open.
        """
        index = bisect_left(self._bounds, value)
        exemplar = (seen_in, value, time.time()) if seen_in is not None else None
        with self._lock:
            series = self._series.get(labels) or self._of(labels)
            series.counts[index] += 1
            series.sum += value
            if exemplar is not None:
                series.exemplars[index] = exemplar

    def _of(self, labels: tuple[str, ...]) -> _Series:
        assert len(labels) == len(self._labels)  # noqa: S101
        return self._series.setdefault(labels, _Series(len(self._bound_texts)))

    def describe(self) -> list[HistogramMetricFamily]:
        """Say what there will be, for the registry to find a name that is taken."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See prometheus_client."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        with self._lock:
            seen = [(labels, list(s.counts), list(s.exemplars), s.sum) for labels, s in self._series.items()]
        for labels, counts, exemplars, total in seen:
            below = 0
            buckets: list[tuple[str, float, Exemplar | None]] = []
            for bound, count, exemplar in zip(self._bound_texts, counts, exemplars, strict=True):
                below += count
                buckets.append((bound, below, exemplar and _exemplar(*exemplar)))
            family.add_metric(labels, buckets, total)  # type: ignore[arg-type]  # a label's value is text
        yield family


def _exemplar(context: trace.SpanContext, value: float, at: float) -> Exemplar:
    ids = {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
    return Exemplar(ids, value, at)
