"""Sends spans by OTLP/HTTP: from a bounded queue, in bounded time, counting what was lost.

Telemetry must not hurt the shop. What the queue cannot take is dropped, oldest first; what the backend has not taken
after two seconds is lost; both are counted. A service ends without waiting for a backend that hangs, and says what was
lost by that.
"""

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from google.protobuf.message import DecodeError
from httptools import HttpParserError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

# Not public, but BatchSpanProcessor is a shell around it that hides what is needed: where to count what is dropped,
# and how long to wait at the end (30 s).
from opentelemetry.sdk._shared_internal import BatchProcessor
from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit.calls.wire import Connections
from servicekit.telemetry import logs

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


def leaves(attribute: str) -> bool:
    """Whether an attribute of this name leaves the process."""
    return attribute in ATTRIBUTES or attribute.startswith("shop.")


class Pipeline:
    """The way of ended spans out of the process. Starts a thread.

    Args:
        endpoint: The root of an OTLP/HTTP receiver.
        registry: Where to count.
        encode: Makes an ExportTraceServiceRequest of them.
    """

    def __init__(self, endpoint: str, registry: CollectorRegistry, encode: Callable[[Sequence[Any]], bytes]) -> None:
        counts = _Counts(registry)
        self._exporter = _Exporter(endpoint, counts, encode)
        self._batches: BatchProcessor[Any] = BatchProcessor(
            self._exporter,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH,
            export_timeout_millis=EXPORT_SECONDS * 1000,  # not used by it: the exporter keeps to it
            max_queue_size=QUEUE,
            exporting="Span",
            metrics=counts,
        )

    def take(self, span: Any) -> None:
        """Take a span that has ended."""
        self._batches.emit(span)

    def waiting(self) -> int:
        """Say how many spans wait, of QUEUE: who can come back later need not have any dropped."""
        return len(self._batches._queue)  # noqa: SLF001

    def shutdown(self) -> None:
        """Send what is there, for as long as that may take, say what is left, and end."""
        self._batches.shutdown(SHUTDOWN_MS)
        self._exporter.give_up(self.waiting())

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


_TIMEOUT, _UNAVAILABLE, _REJECTED, _SHUTDOWN, _OTHER = _FAILURES = (
    "timeout",
    "unavailable",
    "rejected",
    "shutdown",
    "_OTHER",
)


_AGAIN = frozenset({429, 502, 503, 504})
"""The statuses that OTLP says to try again."""

_PAUSE_SECONDS = 0.5  # before another try, unless the backend names its own


_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}


def _compressed(body: bytes) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)  # gzip; higher levels take longer than what they save is worth
    return packer.compress(body) + packer.flush()


def _refused(answer: bytes) -> int:
    try:
        return ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
    except DecodeError:
        return 0  # the status says that it took them


class _Exporter:
    def __init__(self, endpoint: str, counts: _Counts, encode: Callable[[Sequence[Any]], bytes]) -> None:
        self._counts = counts
        self._encode = encode
        self._connections = Connections(
            endpoint, most=1, wait_seconds=0, connect_seconds=EXPORT_SECONDS, answer_seconds=EXPORT_SECONDS
        )
        self._ending = threading.Event()
        self._lost = 0
        self._told_at = -_REMIND_SECONDS
        self._told = False
        self._in_hand = 0
        self._given_up = False

    def export(self, spans: Sequence[Any]) -> None:
        self._in_hand = len(spans)
        failure, refused = _OTHER, 0
        try:
            failure, refused = self._send(_compressed(self._encode(spans)))
        finally:
            self._in_hand = 0
            if not self._given_up:
                self._count(len(spans), failure, refused)

    def _send(self, body: bytes) -> tuple[str, int]:
        """Send a batch, again if that may help and there is time; say how it failed, and how many were refused."""
        end = time.monotonic() + EXPORT_SECONDS
        reconnected = False
        while True:
            try:
                answer = self._connections.request("POST", "/v1/traces", _HEADERS, body, seconds=end - time.monotonic())
            except TimeoutError:
                return _TIMEOUT, 0
            except (OSError, HttpParserError):
                if reconnected:
                    return _UNAVAILABLE, 0
                reconnected = True  # a kept connection may have been closed just now
                continue
            if answer.status < HTTPStatus.MULTIPLE_CHOICES:
                return "", _refused(answer.body)
            if answer.status not in _AGAIN:
                return _UNAVAILABLE if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _REJECTED, 0
            pause = float(answer.retry_after) if answer.retry_after.isdecimal() else _PAUSE_SECONDS
            if time.monotonic() + pause >= end or self._ending.wait(pause):
                return _UNAVAILABLE, 0

    def shutdown(self) -> None:
        self._ending.set()
        self._connections.close()

    def give_up(self, waiting: int) -> None:
        """Count and tell what nobody will send: what waits, and what the backend has not answered."""
        self._given_up = True
        if lost := waiting + self._in_hand:
            self._counts.exported(lost, _SHUTDOWN)
            self._told_at = -_REMIND_SECONDS
            self._tell(_SHUTDOWN, lost)

    def _count(self, count: int, failure: str, refused: int) -> None:
        lost = count if failure else min(refused, count)
        if lost:
            self._counts.exported(lost, failure or _REJECTED)
            self._tell(failure or _REJECTED, lost)
        if lost < count:
            self._counts.exported(count - lost, "")
            if not lost:
                self._tell("", 0)

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
