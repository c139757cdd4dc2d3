"""The gateway's span, made of a line of its log: the root of a request's trace."""

from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from observability.gateway.line import UNMATCHED, Line, Vocabulary

RESOLUTION_NS = 1_000_000
"""nginx's clock: milliseconds, cut off."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SCOPE = InstrumentationScope("observability.gateway")
_ERROR = 500


def span_of(line: Line, vocabulary: Vocabulary, resource: Resource) -> ReadableSpan | None:
    """Make the span of a request; None for one that is not sampled.

    Both of its ends were cut to milliseconds. At the start that is right: no child began before. The end is moved to
    the end of its millisecond, or a service's span would seem to last longer than the request it served.
    """
    if not line.sampled:
        return None
    trace_id, span_id = int(line.trace_id, 16), int(line.span_id, 16)
    if not trace_id or not span_id:
        return None
    flags = TraceFlags(int(line.trace_flags, 16))
    ended = (line.timestamp - _EPOCH) // _MICROSECOND * 1_000
    method, route = vocabulary.method(line), vocabulary.route(line)
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": line.scheme,
        "server.address": line.server_name,
        "server.port": line.server_port,
    }
    name = "HTTP" if method == "_OTHER" else method
    if route != UNMATCHED:
        name += f" {route}"
        attributes["http.route"] = route
    if line.protocol:
        attributes["network.protocol.version"] = line.protocol
    if line.status:  # 0: no answer was begun
        attributes["http.response.status_code"] = line.status
    if line.status >= _ERROR:
        attributes["error.type"] = str(line.status)
    return ReadableSpan(
        name=name,
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags),
        parent=SpanContext(trace_id, int(line.parent_span_id, 16), is_remote=True, trace_flags=flags)
        if line.parent_span_id
        else None,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if line.status >= _ERROR else StatusCode.UNSET),
        start_time=ended - round(line.duration_s * 1_000) * 1_000_000,
        end_time=ended + RESOLUTION_NS,
        instrumentation_scope=_SCOPE,
    )
