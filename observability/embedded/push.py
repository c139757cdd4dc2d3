"""What Loki takes on its port: `/loki/api/v1/push` as JSON, and `/otlp/v1/logs`.

The bounds are Loki's default ones and, where they are known, the words are Loki's too. As there, a push whose JSON is
not right is refused whole; of one with a line that cannot be kept, the other lines are kept.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from observability.embedded import otlp
from observability.embedded.logs import MAX_LINE, UNKNOWN_SERVICE, LogEntry, LogStore
from observability.embedded.metrics import BackendMetrics
from observability.embedded.otlp import Limits
from observability.embedded.otlplogs import metadata_name
from observability.receiving.body import JSON, Refused, unpacked_body
from observability.receiving.messages import load_json
from servicekit.telemetry.logs import get_logger

PUSH = "/loki/api/v1/push"
OTLP = "/otlp/v1/logs"

_SERVICE_LABELS = (
    *("service", "app", "application", "app_name", "name", "app_kubernetes_io_name", "container", "container_name"),
    *("k8s_container_name", "component", "workload", "job", "k8s_job_name"),
)
"""Whose value becomes `service_name` where that is missing: the first of them that is there."""

_AHEAD_NS = 10 * 60 * 10**9
_MAX_LABELS, _MAX_NAME, _MAX_VALUE = 15, 1024, 2048
_MAX_METADATA, _MAX_METADATA_BYTES = 128, 64 * 1024
_TOLD = 10  # different reasons in an answer
_TIMESTAMP = re.compile(r"-?[0-9]{1,19}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Unkept(Exception):
    """A stream or a line that is not kept: why in a word for the metric, and a function that says it in words."""

    def __init__(self, reason: str, tell: Callable[[], str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tell = tell


@dataclass
class _Unkepts:
    """How many lines are not kept by reason, and the first few messages: a message has all labels of its stream."""

    lines: Counter[str] = field(default_factory=Counter)
    messages: dict[str, None] = field(default_factory=dict)

    def add(self, problem: _Unkept, lines: int) -> None:
        self.lines[problem.reason] += lines
        if len(self.messages) < _TOLD:
            self.messages[problem.tell()] = None


@dataclass(frozen=True)
class _Bounds:
    """The times between which a line may lie, in nanoseconds."""

    oldest: int
    newest: int


def blueprint(store: LogStore, metrics: BackendMetrics, limits: Limits) -> Blueprint:
    """Make the routes that take logs on Loki's port, and its `/metrics`."""
    routes = Blueprint("push", __name__)

    @routes.before_request
    def refuse_early() -> None:
        if request.method == "POST" and store.database.is_full:
            raise otlp.overloaded()

    @routes.errorhandler(Refused)
    def refuse(error: Refused) -> Response:
        metrics.refused.labels("logs", error.reason).inc()
        return otlp.refusal(error) if request.path == OTLP else _refusal(error)

    @routes.post(OTLP)
    def take_otlp() -> Response:
        otlp.take_logs(store, metrics, limits)
        return Response(status=HTTPStatus.NO_CONTENT)

    @routes.post(PUSH)
    def take_push() -> Response:
        return _take_push(store, metrics, limits)

    @routes.route(PUSH, methods=["GET", "PUT", "DELETE"])
    def only_post() -> Response:
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed")

    @routes.get("/metrics")
    def expose() -> Response:
        return otlp.exposition(metrics)

    @routes.app_errorhandler(HTTPException)
    def refuse_otherwise(error: HTTPException) -> Response:
        status, message = HTTPStatus(error.code or 500), str(error.description)
        return (
            otlp.error_response(status, message, request.mimetype) if request.path == OTLP else _text(status, message)
        )

    @routes.app_errorhandler(Exception)
    def fail(error: Exception) -> Response:
        get_logger().error("request.failed", path=request.path, exc_info=error)
        return refuse_otherwise(InternalServerError())

    return routes


def _take_push(store: LogStore, metrics: BackendMetrics, limits: Limits) -> Response:
    entries, unkept = _entries(_streams(limits.max_bytes), limits)
    if entries:
        otlp.queue(lambda: store.append(entries))
    metrics.log_records_received.inc(len(entries))
    for reason, lines in unkept.lines.items():
        metrics.log_records_rejected.labels(reason).inc(lines)
    if unkept.messages:
        return _text(HTTPStatus.BAD_REQUEST, "; ".join(unkept.messages))
    return Response(status=HTTPStatus.NO_CONTENT)


def _refusal(error: Refused) -> Response:
    answer = _text(error.status, str(error))
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = str(otlp.RETRY_SECONDS)
    return answer


def _text(status: HTTPStatus, message: str) -> Response:
    return Response(f"{message}\n", status, content_type="text/plain; charset=utf-8")


# -- the body


def _streams(max_bytes: int) -> list[dict[str, Any]]:
    """Read the body's streams."""
    if request.mimetype != JSON:
        message = f"only JSON is taken here, not snappy-compressed protobuf: send Content-Type {JSON}"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", message)
    try:
        body = load_json(unpacked_body(max_bytes))
    except (ValueError, RecursionError):
        raise _malformed("the body is no valid JSON") from None
    if body is not None and not isinstance(body, dict):
        raise _malformed("the body must be an object with `streams`")
    streams = body and body.get("streams")
    if not body or streams in (None, []):
        message = "error at least one valid stream is required for ingestion"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", message)
    if not isinstance(streams, list) or not all(isinstance(stream, dict) for stream in streams):
        raise _malformed("`streams` must be a list of objects")
    return streams


def _malformed(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "malformed", message)


def _entries(streams: list[dict[str, Any]], limits: Limits) -> tuple[list[LogEntry], _Unkepts]:
    """Make entries of the streams; say also why some cannot be kept."""
    now = time.time_ns()
    bounds = _Bounds(now - int(limits.max_age_seconds * 1e9), now + _AHEAD_NS)
    entries: list[LogEntry] = []
    unkept = _Unkepts()
    for stream in streams:
        labels = _labels(stream.get("stream"))
        name = _shown(labels)
        read = list(_read_values(stream.get("values")))  # all are looked at: one that is malformed refuses the whole
        try:
            _check_labels(labels, name)
        except _Unkept as problem:
            unkept.add(problem, len(read))
            continue
        for entry in read:
            try:
                _check(*entry, name, bounds)
            except _Unkept as problem:
                unkept.add(problem, 1)
            else:
                timestamp, line, metadata = entry
                entries.append(LogEntry(timestamp, labels, metadata, line))
    return entries, unkept


def _labels(given: Any) -> dict[str, str]:
    """Read a stream's labels. As in Loki, one without a value is none, and there is always a `service_name`."""
    if not isinstance(given, dict):
        raise _malformed("`stream` must be an object: the stream's labels")
    labels = {}
    for name, value in sorted(given.items()):
        if not _NAME.fullmatch(name):
            raise _malformed(f"couldn't parse labels: {name!r} is no valid name of a label")
        try:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
        except TypeError:  # nested too deeply, or a number that is too large
            raise _malformed(f"couldn't parse labels: the value of {name!r} is no text") from None
        if text:
            labels[name] = text
    if labels and "service_name" not in labels:
        labels["service_name"] = next((labels[name] for name in _SERVICE_LABELS if name in labels), UNKNOWN_SERVICE)
    return labels


def _read_values(given: Any) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Read a stream's values: time, line, metadata."""
    if given is None:
        return
    if not isinstance(given, list):
        raise _malformed("`values` must be a list of lines")
    for value in given:
        match value:
            case [str(timestamp), str(line), *rest] if _TIMESTAMP.fullmatch(timestamp):
                yield int(timestamp), line, _metadata(rest[0] if rest else {})
            case _:
                raise _malformed('a line must be ["<nanoseconds>", "<text>"], and may have an object of metadata')


def _metadata(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise _malformed("a line's metadata must be an object of texts")
    named = {metadata_name(name): value for name, value in given.items() if value}
    named.pop("", None)
    return named


# -- what is not kept, in Loki's words


def _check_labels(labels: dict[str, str], stream: str) -> None:
    if not labels:
        raise _Unkept("labels", lambda: "error at least one label pair is required per stream")
    if (count := len(labels.keys() - {"service_name"})) > _MAX_LABELS:
        raise _Unkept("labels", lambda: f"entry for stream '{stream}' has {count} label names; limit {_MAX_LABELS}")
    long_name = next((name for name in labels if _bytes(name) > _MAX_NAME), None)
    if long_name is not None:
        raise _Unkept("labels", lambda: f"stream '{stream}' has label name too long: '{long_name}'")
    long_value = next((value for value in labels.values() if _bytes(value) > _MAX_VALUE), None)
    if long_value is not None:
        raise _Unkept("labels", lambda: f"stream '{stream}' has label value too long: '{long_value}'")


def _check(timestamp: int, line: str, metadata: dict[str, str], stream: str, bounds: _Bounds) -> None:
    if timestamp < bounds.oldest:
        raise _Unkept(
            "too_old",
            lambda: (
                f"entry for stream '{stream}' has timestamp too old: {_rfc3339(timestamp)}, "
                f"oldest acceptable timestamp is: {_rfc3339(bounds.oldest)}"
            ),
        )
    if timestamp > bounds.newest:
        raise _Unkept("too_new", lambda: f"entry for stream '{stream}' has timestamp too new: {_rfc3339(timestamp)}")
    if (length := _bytes(line)) > MAX_LINE:
        raise _Unkept(
            "too_long",
            lambda: (
                f"Max entry size '{MAX_LINE}' bytes exceeded for stream '{stream}' while adding an entry with length "
                f"'{length}' bytes"
            ),
        )
    if (count := len(metadata)) > _MAX_METADATA:
        raise _Unkept(
            "metadata",
            lambda: f"stream '{stream}' has too many structured metadata labels: '{count}', limit: '{_MAX_METADATA}'",
        )
    if (size := sum(_bytes(name) + _bytes(value) for name, value in metadata.items())) > _MAX_METADATA_BYTES:
        raise _Unkept(
            "metadata",
            lambda: (
                f"stream '{stream}' has structured metadata too large: '{size}' bytes, "
                f"limit: '{_MAX_METADATA_BYTES}' bytes"
            ),
        )


def _shown(labels: dict[str, str]) -> str:
    """Write labels as Loki does."""
    return "{" + ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in sorted(labels.items())) + "}"


def _bytes(text: str) -> int:
    return len(text.encode())


def _rfc3339(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError):
        return f"{nanoseconds} ns"
