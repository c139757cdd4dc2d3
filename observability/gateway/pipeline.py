"""From lines to metrics and spans."""

import time
from collections.abc import Iterable

from opentelemetry.sdk.resources import Resource
from pydantic import ValidationError

from observability.gateway.line import Line, Vocabulary
from observability.gateway.metrics import GatewayMetrics
from observability.gateway.spans import span_of
from servicekit.telemetry.exporter import Batches

_PAUSE_SECONDS = 0.02
_BATCH_LOST = b"OTel export failure"  # nginx's module says so, in the error log, and tries no second time


class Pipeline:
    """Counts each line, and makes its span.

    Args:
        vocabulary: The words that may become labels.
        metrics: Where requests are counted.
        export: Where they go; None to make none.
        resource: Whose spans they are.
        patience_seconds: How long lines may wait for room in its queue. A backlog is read faster than its spans are
            sent; but a backend that takes none must not keep the metrics waiting.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        metrics: GatewayMetrics,
        export: Batches | None,
        resource: Resource,
        patience_seconds: float = 1.0,
    ) -> None:
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._export = export
        self._resource = resource
        self._patience = patience_seconds
        self._patient = True

    def take(self, lines: Iterable[bytes]) -> None:
        """Take some hundred lines at most."""
        if self._export is not None:
            self._wait_for(self._export)
        newest = None
        for text in lines:
            line = self._parse(text)
            if line is None:
                continue
            newest = line
            context = line.recorded()
            self._metrics.request(line, context)
            if self._export is not None and context is not None:
                self._export.on_end(span_of(line, context, self._vocabulary, self._resource))
        if newest is not None:
            self._metrics.delay(time.time() - newest.timestamp.timestamp())

    def _parse(self, text: bytes) -> Line | None:
        if not text.startswith(b"{"):
            self._metrics.other()
            if _BATCH_LOST in text:
                self._metrics.batch_lost()
            return None
        try:
            return Line.model_validate_json(text)
        except ValidationError:
            self._metrics.malformed()
            return None

    def _wait_for(self, export: Batches) -> None:
        """Wait until there is room. Who waited in vain waits no more until there was room again."""
        deadline = time.monotonic() + self._patience
        while export.waiting > export.capacity // 2:
            if not self._patient or time.monotonic() >= deadline:
                self._patient = False
                return
            time.sleep(_PAUSE_SECONDS)
        self._patient = True
