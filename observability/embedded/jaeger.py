"""Jaeger's HTTP API (the JSON one, version 1) on the span store.

What is answered, and how, was compared with Jaeger 2.13 itself: tests/conformance/test_jaeger.py.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from observability.embedded import tags
from observability.embedded.database import Timeout
from observability.embedded.jaegerjson import hex_id, trace_json
from observability.embedded.search import FOREVER, Query
from observability.embedded.spans import SpanStore, StoredTrace
from observability.receiving.messages import load_json
from servicekit.telemetry.logs import get_logger

DEFAULT_LIMIT = 100
MAX_LIMIT = 1500  # as Jaeger's UI offers; more traces in one answer are more memory than this process should take
MAX_ANSWER = 32 * 1024 * 1024  # bytes; some 30,000 spans

_PARALLEL = 2  # answers with traces at once: a matter of memory
_WAIT_SECONDS = 10.0  # for a turn

_US = 1_000
_MS = 1_000_000
_S = 1_000_000_000
_DAY = 24 * 3600 * _S
_LOOKBACK = 2 * _DAY  # Jaeger's default of a search without `start`
_UNITS = {"ns": 1, "us": _US, "µs": _US, "ms": _MS, "s": _S, "m": 60 * _S, "h": 3600 * _S}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_TRACE_ID_DIGITS = 32
_INTEGER_DIGITS = 40  # of a number, with zeros in front: more are not even read
_BOOLEANS = frozenset({"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"})


class BadRequest(ValueError):
    """A parameter is wrong. The message is for whoever asked."""


def blueprint(spans: SpanStore) -> Blueprint:
    """Make the API's routes."""
    routes = Blueprint("jaeger", __name__)
    turns = threading.BoundedSemaphore(_PARALLEL)

    @routes.get("/api/services")
    def services() -> Response:
        names = spans.services()
        return _answer(names, total=len(names))

    @routes.get("/api/services/<path:service>/operations")
    def operation_names(service: str) -> Response:
        names = sorted({name for name, _ in spans.operations(service)})
        return _answer(names or None, total=len(names))

    @routes.get("/api/operations")
    def operations() -> Response:
        wanted = request.args.get("spanKind", "")
        found = [(name, _kind(kind)) for name, kind in spans.operations(_required_service())]
        answer = [{"name": name, "spanKind": kind} for name, kind in found if wanted in {"", kind}]
        return _answer(answer, total=len(answer))

    @routes.get("/api/traces/<trace_id>")
    def trace(trace_id: str) -> Response:
        _check_raw()
        with _turn(turns):
            found = spans.trace(_trace_id(trace_id))
            return _error(HTTPStatus.NOT_FOUND, "trace not found") if found is None else _answer(_rendered([found]))

    @routes.get("/api/traces")
    def search() -> Response:
        _check_raw()
        with _turn(turns):
            if wanted := request.args.getlist("traceID"):
                return _traces(spans, wanted)
            with contextlib.closing(spans.search(_query())) as found:
                return _answer(_rendered(found))

    @routes.get("/api/dependencies")
    def dependencies() -> Response:
        end = _integer("endTs", time.time_ns() // _MS) * _MS
        start = end - _integer("lookback", _DAY // _MS) * _MS
        service = request.args.get("service", "")
        with _turn(turns):
            calls = spans.dependencies(_clamped(start), _clamped(end))
        return _answer(
            [
                {"parent": parent, "child": child, "callCount": count}
                for parent, child, count in calls
                if service in {"", parent, child}
            ]
        )

    @routes.get("/api/metrics/<_name>")
    def metrics(_name: str) -> Response:
        # As Jaeger without a store of metrics.
        return _error(HTTPStatus.NOT_IMPLEMENTED, "metrics querying is currently disabled")

    _add_home(routes)
    _add_errors(routes)
    return routes


def _add_home(routes: Blueprint) -> None:
    @routes.get("/ready")
    def ready() -> str:
        return "ready\n"

    @routes.get("/")
    def home() -> Response:
        text = "The embedded backend: Jaeger's HTTP API without its UI. Begin at /api/services.\n"
        return Response(text, content_type="text/plain; charset=utf-8")


def _add_errors(routes: Blueprint) -> None:
    @routes.app_errorhandler(BadRequest)
    def bad_request(error: BadRequest) -> Response:
        return _error(HTTPStatus.BAD_REQUEST, str(error))

    @routes.app_errorhandler(Timeout)
    def too_slow(error: Timeout) -> Response:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    @routes.app_errorhandler(HTTPStatus.NOT_FOUND)
    def not_supported(_: Exception) -> Response:
        return _error(HTTPStatus.NOT_FOUND, "the embedded backend has no such path: see docs/embedded-backend.md")

    @routes.app_errorhandler(HTTPStatus.METHOD_NOT_ALLOWED)
    def not_allowed(_: Exception) -> Response:
        return _error(HTTPStatus.METHOD_NOT_ALLOWED, "the embedded backend answers only GET here")

    @routes.app_errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        return _error(HTTPStatus(error.code or 500), str(error.description))

    @routes.app_errorhandler(Exception)
    def failed(error: Exception) -> Response:
        get_logger().error("request.failed", path=request.path, exc_info=error)
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the embedded backend's log says more")


# -- answers


def _answer(data: Any, *, total: int = 0, errors: Any = None) -> Response:
    body = {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}
    return Response(orjson.dumps(body, option=_pretty()), content_type="application/json")


def _pretty() -> int:
    return orjson.OPT_INDENT_2 if request.args.get("prettyPrint", "false") not in {"", "false"} else 0


def _error(status: HTTPStatus, message: str) -> Response:
    """Answer as Jaeger does by way of Go's `http.Error`, which calls the JSON a text."""
    body = {"data": None, "total": 0, "limit": 0, "offset": 0, "errors": [{"code": int(status), "msg": message}]}
    return Response(orjson.dumps(body) + b"\n", status, content_type="text/plain; charset=utf-8")


def _traces(spans: SpanStore, wanted: Sequence[str]) -> Response:
    """Answer with traces by their ids, and with an error for each that is not there."""
    if len(wanted) > MAX_LIMIT:
        raise BadRequest(f"at most {MAX_LIMIT} traceID parameters")
    missing = []

    def found() -> Iterator[StoredTrace]:
        for trace_id in [_trace_id(one, "cannot parse traceID param: ") for one in wanted]:
            trace = spans.trace(trace_id)
            if trace is None:
                missing.append({"msg": "trace not found", "traceID": hex_id(trace_id)})
            else:
                yield trace

    rendered = _rendered(found())
    return _answer(rendered, errors=missing or None)


@contextlib.contextmanager
def _turn(turns: threading.BoundedSemaphore) -> Iterator[None]:
    if not turns.acquire(timeout=_WAIT_SECONDS):
        raise Timeout("too many searches at once: try again in a moment")
    try:
        yield
    finally:
        turns.release()


def _rendered(traces: Iterable[StoredTrace]) -> list[orjson.Fragment]:
    """Make each trace into text at once, which takes a tenth of the memory."""
    rendered, size = [], 0
    for trace in traces:
        text = orjson.dumps(trace_json(trace), option=_pretty())
        size += len(text)
        if size > MAX_ANSWER:
            raise BadRequest(f"this would be more than {MAX_ANSWER >> 20} MiB: ask for fewer traces by `limit`")
        rendered.append(orjson.Fragment(text))
    return rendered


def _kind(kind: int) -> str:
    return tags.KINDS[kind] if 0 <= kind < len(tags.KINDS) else ""


# -- parameters


def _query() -> Query:
    now = time.time_ns()
    start = _integer("start", (now - _LOOKBACK) // _US) * _US
    end = _integer("end", now // _US) * _US
    if start > end:
        raise BadRequest("invalid parameter: start time must be before end time")
    shortest, longest = _duration("minDuration"), _duration("maxDuration")
    if shortest and longest and longest < shortest:
        raise BadRequest("'maxDuration' should be greater than 'minDuration'")
    limit = _integer("limit", DEFAULT_LIMIT)
    if not 0 < limit <= MAX_LIMIT:
        raise BadRequest(f"invalid parameter: limit must be greater than 0, and at most {MAX_LIMIT}")
    return Query(
        service=_required_service(),
        operation=request.args.get("operation", ""),
        tags=_tags(),
        start=_clamped(start),
        # Times are kept in nanoseconds, and asked for in microseconds: the last one counts whole.
        end=_clamped(end + _US - 1),
        min_duration=_clamped(shortest),
        max_duration=_clamped(longest + _US - 1) if longest > 0 else FOREVER,
        limit=limit,
    )


def _required_service() -> str:
    service = request.args.get("service", "")
    if not service:
        raise BadRequest("parameter 'service' is required")
    return service


def _tags() -> dict[str, str]:
    wanted: dict[str, str] = {}
    for one in request.args.getlist("tag"):
        key, colon, value = one.partition(":")
        if not colon:
            raise BadRequest(f"malformed 'tag' parameter, expecting key:value, received: {one}")
        wanted[key] = value
    for many in request.args.getlist("tags"):
        try:
            parsed = load_json(many.encode())
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"malformed 'tags' parameter, cannot unmarshal JSON: {error}") from error
        if parsed is None:
            continue
        if not isinstance(parsed, dict) or not all(
            value is None or isinstance(value, str) for value in parsed.values()
        ):
            raise BadRequest("malformed 'tags' parameter, cannot unmarshal JSON: expecting an object of strings")
        wanted.update({key: value or "" for key, value in parsed.items()})
    return wanted


def _trace_id(text: str, prefix: str = "") -> bytes:
    if len(text) > _TRACE_ID_DIGITS:
        raise BadRequest(f"{prefix}TraceID cannot be longer than {_TRACE_ID_DIGITS} hex characters: {text}")
    if not re.fullmatch(r"[0-9a-fA-F]+", text):
        raise BadRequest(f'{prefix}parsing "{text}": invalid syntax')
    return bytes.fromhex(text.zfill(_TRACE_ID_DIGITS))


def _integer(name: str, default: int) -> int:
    text = request.args.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRequest(f"unable to parse param '{name}': parsing \"{text}\": invalid syntax")
    if len(text) > _INTEGER_DIGITS or not -FOREVER - 1 <= int(text) <= FOREVER:
        raise BadRequest(f"unable to parse param '{name}': parsing \"{text}\": value out of range")
    return int(text)


def _check_raw() -> None:
    """Refuse a wrong `raw`; a right one changes nothing here."""
    text = request.args.get("raw", "")
    if text and text not in _BOOLEANS:
        raise BadRequest(f"unable to parse param 'raw': parsing \"{text}\": invalid syntax")


def _duration(name: str) -> int:
    """Read a duration as Go writes it, `1m2.5s`, in nanoseconds."""
    text = request.args.get(name, "")
    unsigned = re.sub(r"^[+-]", "", text).replace("μ", "µ")  # the Greek letter is allowed too
    if unsigned in {"", "0"}:
        return 0
    parts = _DURATION_PART.findall(unsigned)
    nanoseconds = int(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))
    if "".join(number + unit for number, unit in parts) != unsigned or nanoseconds > FOREVER:
        raise BadRequest(f"unable to parse param '{name}': invalid duration \"{text}\"")
    return -nanoseconds if text.startswith("-") else nanoseconds


def _clamped(nanoseconds: int) -> int:
    return max(0, min(nanoseconds, FOREVER))
