"""OTLP/HTTP: takes traces and logs, as protobuf or JSON, and refuses what is not right as the protocol says.

A request is unpacked and checked here; it is written later, by the database's one writer. Whoever sends waits for the
check only, and is told to come back when the writer is behind.
"""

import base64
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.exposition import choose_encoder

from observability.embedded.database import Database, Full
from observability.embedded.logs import LogStore, entries_from_otlp
from observability.embedded.metrics import Metrics
from observability.embedded.spans import SpanStore

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
RETRY_SECONDS = 1

_TRACE_ID, _SPAN_ID = 16, 8  # bytes
_NO_PARENT = bytes(_SPAN_ID)
_AHEAD = 24 * 3600 * 10**9  # a clock may be this wrong
_HEX_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_GZIP = 16 + zlib.MAX_WBITS
_RPC_CODES = {  # of google.rpc.Code, which a Status has beside the text
    HTTPStatus.BAD_REQUEST: 3,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: 3,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: 8,
    HTTPStatus.SERVICE_UNAVAILABLE: 14,
}


class Refused(Exception):  # noqa: N818  # as the metric calls it
    """A request that is not taken: its status, why in a word for the metric, and in words for the sender."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What is too much, or too old."""

    max_bytes: int
    max_age_seconds: float


def blueprint(database: Database, spans: SpanStore, logs: LogStore, metrics: Metrics, limits: Limits) -> Blueprint:
    """Make the routes of the OTLP port."""
    routes = Blueprint("otlp", __name__)

    @routes.before_request
    def refuse_early() -> None:
        # Before the body is unpacked, which takes longer than all else here.
        if request.method == "POST" and database.is_full:
            raise overloaded()

    @routes.errorhandler(Refused)
    def refuse(error: Refused) -> Response:
        metrics.refused.labels(request.path.rpartition("/")[2], error.reason).inc()
        return refusal(error)

    @routes.post("/v1/traces")
    def traces() -> Response:
        return _respond(HTTPStatus.OK, _traces(spans, metrics, limits))

    @routes.post("/v1/logs")
    def log_records() -> Response:
        return _respond(HTTPStatus.OK, take_logs(logs, metrics, limits))

    @routes.get("/metrics")
    def expose() -> Response:
        return exposition(metrics)

    @routes.get("/ready")
    def ready() -> str:
        return "ready\n"

    return routes


def exposition(metrics: Metrics) -> Response:
    """Answer with the backend's own metrics."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(metrics.registry), content_type=content_type)


def refusal(error: Refused) -> Response:
    """Answer with a `google.rpc.Status`."""
    response = _respond(error.status, Status(code=_RPC_CODES[error.status], message=str(error)))
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def overloaded() -> Refused:
    """Say that the writer is behind."""
    message = "the writer is behind: send it again in a moment"
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", message)


def _traces(spans: SpanStore, metrics: Metrics, limits: Limits) -> Message:
    message = ExportTraceServiceRequest()
    size = _read(message, limits.max_bytes)
    rejected = _reject_spans(message, limits)
    accepted = sum(len(group.spans) for batch in message.resource_spans for group in batch.scope_spans)
    if accepted:
        queue(lambda: spans.append(message.resource_spans, size))
    metrics.spans_received.inc(accepted)
    for reason, count in rejected.items():
        metrics.spans_rejected.labels(reason).inc(count)
    answer = ExportTraceServiceResponse()
    answer.partial_success.SetInParent()  # as the Collector's
    if rejected:
        answer.partial_success.rejected_spans = sum(rejected.values())
        answer.partial_success.error_message = "; ".join(f"{reason}: {count}" for reason, count in rejected.items())
    return answer


def take_logs(logs: LogStore, metrics: Metrics, limits: Limits) -> Message:
    """Take the log records of the request; give the answer."""
    message = ExportLogsServiceRequest()
    _read(message, limits.max_bytes)
    found = entries_from_otlp(message)
    if found:
        queue(lambda: logs.append(found))
    metrics.log_records_received.inc(len(found))
    answer = ExportLogsServiceResponse()
    answer.partial_success.SetInParent()
    return answer


def queue(append: Callable[[], None]) -> None:
    """Hand something to the writer."""
    try:
        append()
    except Full:
        raise overloaded() from None


# -- spans that cannot be kept


def _reject_spans(message: ExportTraceServiceRequest, limits: Limits) -> Mapping[str, int]:
    """Take out the spans that cannot be kept; say how many there were, by reason."""
    now = time.time_ns()
    times = (now - int(limits.max_age_seconds * 1e9), now + _AHEAD)
    rejected: dict[str, int] = {}
    for batch in message.resource_spans:
        for group in batch.scope_spans:
            reasons = [_problem(span, *times) for span in group.spans]
            if not any(reasons):
                continue
            kept = [span for span, reason in zip(group.spans, reasons, strict=True) if not reason]
            for reason in filter(None, reasons):
                rejected[reason] = rejected.get(reason, 0) + 1
            del group.spans[:]
            group.spans.extend(kept)
    return rejected


def _problem(span: Span, earliest: int, latest: int) -> str:
    if len(span.trace_id) != _TRACE_ID or len(span.span_id) != _SPAN_ID:
        return "bad_id"
    if not any(span.trace_id) or not any(span.span_id):
        return "bad_id"
    if span.parent_span_id:
        if len(span.parent_span_id) != _SPAN_ID:
            return "bad_id"
        if span.parent_span_id == _NO_PARENT:
            span.ClearField("parent_span_id")
    return "" if earliest <= span.start_time_unix_nano <= latest else "bad_time"


# -- the body


def _read(message: Message, max_bytes: int) -> int:
    """Fill the message from the request's body; give the body's size, unpacked."""
    if request.mimetype not in {PROTOBUF, JSON}:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", f"send {PROTOBUF} or {JSON}")
    body = unpacked_body(max_bytes)
    try:
        if request.mimetype == JSON:
            fields = orjson.loads(body)
            if not isinstance(fields, dict):
                raise ValueError(fields)
            json_format.ParseDict(_with_binary_ids(fields), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError):
        # Without the library's words: they quote what was sent.
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is no valid export request") from None
    return len(body)


def unpacked_body(max_bytes: int) -> bytes:
    """Undo the encoding of the request's body, but never make more of it than is allowed."""
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in {"identity", ""}:
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    if encoding != "gzip":
        raise Refused(HTTPStatus.BAD_REQUEST, "encoding", "send it with gzip, or without a Content-Encoding")
    unzip = zlib.decompressobj(_GZIP)
    try:
        unpacked = unzip.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is not valid gzip") from None
    if len(unpacked) > max_bytes:
        raise _too_large(max_bytes)
    if not unzip.eof or unzip.unused_data:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is not one whole gzip stream")
    return unpacked


def _too_large(max_bytes: int) -> Refused:
    message = f"a request may have {max_bytes} bytes, unpacked: send smaller batches"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def _with_binary_ids(value: Any) -> Any:
    """Turn the ids of OTLP's JSON, which are hexadecimal, into protobuf's Base64."""
    if isinstance(value, list):
        return [_with_binary_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    return dict(_converted(value))


def _converted(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if name in _HEX_IDS and isinstance(value, str):
            yield name, base64.b64encode(bytes.fromhex(value)).decode()
        else:
            yield name, _with_binary_ids(value)


def _respond(status: HTTPStatus, message: Message) -> Response:
    """Answer in the form that was sent: protobuf, unless it was JSON."""
    if request.mimetype == JSON:
        return Response(json_format.MessageToJson(message, indent=None), status, content_type=JSON)
    return Response(message.SerializeToString(), status, content_type=PROTOBUF)
