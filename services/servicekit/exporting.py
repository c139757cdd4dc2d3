"""Sends spans by OTLP/HTTP: from a bounded queue, in bounded time, counting what was lost.

Telemetry must not hurt the shop. What the queue cannot take is dropped, oldest first; what the backend does not take
within two seconds is lost; both are counted, and a service ends without waiting for a backend that hangs.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

# Not public, but BatchSpanProcessor is a shell around it that hides what is needed: where to count what is dropped,
# and how long to wait at the end (30 s).
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status
from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit import logs

DELAY_MS = 200  # somebody who has just placed an order wants to see it
QUEUE = 2048
BATCH = 512
EXPORT_SECONDS = 2.0  # for one batch, retries included
SHUTDOWN_MS = 1500
_REMIND_SECONDS = 60.0

ATTRIBUTES = frozenset({
    "db.collection.name",
    "db.namespace",
    "db.operation.name",
    "db.query.summary",
    "db.query.text",
    "db.response.status_code",
    "db.system.name",
    "error.type",
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "peer.service",
    "server.address",
    "server.port",
    "url.scheme",
    "url.template",
})  # fmt: skip
"""The attributes that leave the process, beside the shop's own, `shop.*`."""


def cut(span: ReadableSpan) -> ReadableSpan:
    """Return a span with nothing but what the telemetry contract knows.

    Instrumentation libraries record more than one would think: path and query, the user agent, the client's address,
    a made-up method, messages of exceptions. A list of what may leave keeps out what they will think of next. The
    client's tracestate is handed on in headers, as W3C wants it, and not kept.
    """
    return ReadableSpan(
        span.name,
        _stateless(span.context),
        _stateless(span.parent),
        span.resource,
        {name: value for name, value in (span.attributes or {}).items() if name in ATTRIBUTES or name[:5] == "shop."},
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _stateless(context: SpanContext | None) -> SpanContext | None:
    if context is None or not context.trace_state:
        return context
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class Pipeline(SpanProcessor):
    """The way of ended spans out of the process. Starts a thread.

    Args:
        endpoint: The root of an OTLP/HTTP receiver.
        registry: Where to count.
    """

    def __init__(self, endpoint: str, registry: CollectorRegistry) -> None:
        counts = _Counts(registry)
        self._batches: BatchProcessor[ReadableSpan] = BatchProcessor(
            _Exporter(endpoint, counts),
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH,
            export_timeout_millis=EXPORT_SECONDS * 1000,  # not used by it: the exporter keeps to it
            max_queue_size=QUEUE,
            exporting="Span",
            metrics=counts,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._batches.emit(span)

    def waiting(self) -> int:
        """Say how many spans wait, of QUEUE: who can come back later need not have any dropped."""
        return len(self._batches._queue)  # noqa: SLF001

    def shutdown(self) -> None:
        """Send what is there, for as long as that may take, and end."""
        self._batches.shutdown(SHUTDOWN_MS)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is there now; for tests."""
        return self._batches.force_flush(timeout_millis)


class _Counts:
    """OpenTelemetry's SDK metrics, by their conventional names, in Prometheus' form."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._processed = Counter(
            "otel_sdk_processor_span_processed_total",
            "Spans handed to the exporter, or dropped: then error_type says why.",
            ["error_type"],
            registry=registry,
        )
        self._size = Gauge("otel_sdk_processor_span_queue_size", "Spans that wait to be exported.", registry=registry)
        Gauge("otel_sdk_processor_span_queue_capacity", "Spans that may wait to be exported.", registry=registry).set(
            QUEUE
        )
        self._exported = Counter(
            "otel_sdk_exporter_span_exported_total",
            "Spans exported, or lost: then error_type says why.",
            ["error_type"],
            registry=registry,
        )
        for error_type in ("", "queue_full"):
            self._processed.labels(error_type)
        for error_type in ("", *_FAILURES):
            self._exported.labels(error_type)

    def register_queue_size(self, get_queue_size: Callable[[], int]) -> None:
        self._size.set_function(get_queue_size)

    def finish_items(self, count: int) -> None:
        self._processed.labels("").inc(count)

    def drop_items(self, count: int, error_type: str = "queue_full") -> None:
        self._processed.labels(error_type).inc(count)

    def exported(self, count: int, error_type: str) -> None:
        self._exported.labels(error_type).inc(count)


_TIMEOUT, _UNAVAILABLE, _REJECTED, _OTHER = _FAILURES = ("timeout", "unavailable", "rejected", "_OTHER")


class _Session(requests.Session):
    """Remembers how the last request failed: OpenTelemetry's exporter says no more than that it did."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # no proxy, no .netrc: as the shop's other clients
        self.failure = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.failure = _UNAVAILABLE
        try:
            response = super().request(*args, **kwargs)
        except requests.Timeout:
            self.failure = _TIMEOUT
            raise
        if response.status_code < 500 and response.status_code != 429:  # noqa: PLR2004  # 429: come again later
            self.failure = _REJECTED  # unless it succeeded, when nobody asks
        return response


class _Exporter(SpanExporter):
    def __init__(self, endpoint: str, counts: _Counts) -> None:
        self._counts = counts
        self._session = _Session()
        self._otlp = OTLPSpanExporter(
            f"{endpoint}/v1/traces", timeout=EXPORT_SECONDS, compression=Compression.Gzip, session=self._session
        )
        self._lost = 0
        self._told_at = -_REMIND_SECONDS
        self._told = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._session.failure = _OTHER
        result = SpanExportResult.FAILURE
        try:
            result = self._otlp.export([cut(span) for span in spans])
        finally:
            failure = "" if result is SpanExportResult.SUCCESS else self._session.failure
            self._counts.exported(len(spans), failure)
            self._tell(failure, len(spans))
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]

    def _tell(self, failure: str, count: int) -> None:
        # A line a minute at most, however often it comes and goes. The endpoint stays out: it may hold a password.
        if failure:
            self._lost += count
            if time.monotonic() - self._told_at >= _REMIND_SECONDS:
                self._told_at, self._told = time.monotonic(), True
                logs.get_logger().warning("telemetry.export_failed", error_type=failure, spans_lost=self._lost)
        elif self._told:
            logs.get_logger().info("telemetry.export_resumed", spans_lost=self._lost)
            self._lost, self._told = 0, False
