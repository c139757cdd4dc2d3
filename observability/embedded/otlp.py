"""OTLP/HTTP: takes traces and logs, as protobuf or JSON, and refuses what is not right as the protocol says.

A request is unpacked and checked here; it is written later, by the database's one writer. Whoever sends waits for the
check only, and is told to come back when the writer is behind.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from flask import Blueprint, Response, request
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.exposition import choose_encoder
from werkzeug.exceptions import HTTPException, InternalServerError

from observability.embedded.database import Database, Full
from observability.embedded.logs import LogStore
from observability.embedded.metrics import BackendMetrics
from observability.embedded.otlplogs import entries_from_otlp
from observability.embedded.spans import SpanStore
from observability.receiving.body import JSON, PROTOBUF, Refused, read_export
from servicekit.telemetry.logs import get_logger

RETRY_SECONDS = 1

_TRACE_ID, _SPAN_ID = 16, 8  # bytes
_NO_PARENT = bytes(_SPAN_ID)
_AHEAD = 24 * 3600 * 10**9  # a clock may be this wrong
_INVALID_ARGUMENT, _INTERNAL = 3, 13  # of google.rpc.Code, which a Status has beside the text
_RPC_CODES = {
    HTTPStatus.NOT_FOUND: 12,  # not implemented, as the Collector says
    HTTPStatus.METHOD_NOT_ALLOWED: 12,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: 8,
    HTTPStatus.NOT_IMPLEMENTED: 12,
    HTTPStatus.SERVICE_UNAVAILABLE: 14,
}


@dataclass(frozen=True)
class Limits:
    """What is too much, or too old."""

    max_bytes: int
    max_age_seconds: float


def blueprint(
    database: Database, spans: SpanStore, logs: LogStore, metrics: BackendMetrics, limits: Limits
) -> Blueprint:
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

    _add_errors(routes)
    return routes


def _add_errors(routes: Blueprint) -> None:
    @routes.app_errorhandler(HTTPException)
    def refuse_otherwise(error: HTTPException) -> Response:
        response = error_response(error.code or 500, str(error.description), request.mimetype)
        response.headers.extend(header for header in error.get_headers() if header[0] == "Allow")
        return response

    @routes.app_errorhandler(Exception)
    def fail(error: Exception) -> Response:
        get_logger().error("request.failed", path=request.path, exc_info=error)
        return refuse_otherwise(InternalServerError())


def exposition(metrics: BackendMetrics) -> Response:
    """Answer with the backend's own metrics."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(metrics.registry), content_type=content_type)


def refusal(error: Refused) -> Response:
    """Answer with a `google.rpc.Status`."""
    response = error_response(error.status, str(error), request.mimetype)
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def overloaded() -> Refused:
    """Say that the writer is behind."""
    message = "the writer is behind: send it again in a moment"
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", message)


def _traces(spans: SpanStore, metrics: BackendMetrics, limits: Limits) -> Message:
    message = ExportTraceServiceRequest()
    size, malformed = read_export(message, limits.max_bytes)
    rejected = _reject_spans(message, limits)
    if malformed:
        rejected["malformed"] = malformed
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


def take_logs(logs: LogStore, metrics: BackendMetrics, limits: Limits) -> Message:
    """Take the log records of the request; give the answer."""
    message = ExportLogsServiceRequest()
    _, malformed = read_export(message, limits.max_bytes)
    found = entries_from_otlp(message)
    if found:
        queue(lambda: logs.append(found))
    metrics.log_records_received.inc(len(found))
    answer = ExportLogsServiceResponse()
    answer.partial_success.SetInParent()
    if malformed:
        metrics.log_records_rejected.labels("malformed").inc(malformed)
        answer.partial_success.rejected_log_records = malformed
        answer.partial_success.error_message = f"malformed: {malformed}"
    return answer


def queue(append: Callable[[], None]) -> None:
    """Hand something to the writer."""
    try:
        append()
    except Full:
        raise overloaded() from None


# -- spans that cannot be kept


def _reject_spans(message: ExportTraceServiceRequest, limits: Limits) -> dict[str, int]:
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


# -- the answer


def error_response(status: int, message: str, media_type: str) -> Response:
    """Make an error of OTLP's, in the form of what was sent."""
    otherwise = _INTERNAL if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _INVALID_ARGUMENT
    code = _RPC_CODES.get(HTTPStatus(status), otherwise)
    return _encoded(status, Status(code=code, message=message), media_type)


def _respond(status: HTTPStatus, message: Message) -> Response:
    return _encoded(status, message, request.mimetype)


def _encoded(status: int, message: Message, media_type: str) -> Response:
    """Answer in the form that was sent: protobuf, unless it was JSON."""
    if media_type == JSON:
        return Response(json_format.MessageToJson(message, indent=None), status, content_type=JSON)
    return Response(message.SerializeToString(), status, content_type=PROTOBUF)
