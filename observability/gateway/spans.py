"""The gateway's span, made of a line of its log: the root of a request's trace."""

from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from observability.gateway.line import UNMATCHED, Line, Vocabulary
from servicekit.telemetry.metrics import OTHER_METHOD

SCOPE = InstrumentationScope("observability.gateway")
RESOLUTION_NS = 1_000_000
"""nginx's clock: milliseconds, cut off."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ERROR = 500


def span_of(line: Line, context: SpanContext, vocabulary: Vocabulary, resource: Resource) -> ReadableSpan:
    """Make the span of a request, whose context is what `line.recorded` gave.

    Both of its ends were cut to milliseconds. At the start that is right: no child began before. The end is moved to
    the end of its millisecond, or a service's span would seem to last longer than the request it served.
    """
    method, route = vocabulary.method(line), vocabulary.route(line)
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": line.scheme,
        "server.address": line.server_name,
        "server.port": line.server_port,
    }
    name = "HTTP" if method == OTHER_METHOD else method
    if route != UNMATCHED:
        name += f" {route}"
        attributes["http.route"] = route
    if line.protocol:
        attributes["network.protocol.version"] = line.protocol
    if line.status:  # 0: no answer was begun
        attributes["http.response.status_code"] = line.status
    if line.status >= _ERROR:
        attributes["error.type"] = str(line.status)
    parent = (
        SpanContext(context.trace_id, int(line.parent_span_id, 16), is_remote=True, trace_flags=context.trace_flags)
        if line.parent_span_id
        else None
    )
    ended = (line.timestamp - _EPOCH) // _MICROSECOND * 1_000
    return ReadableSpan(
        name,
        context,
        parent,
        resource,
        attributes,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if line.status >= _ERROR else StatusCode.UNSET),
        start_time=ended - round(line.duration_s * 1_000) * 1_000_000,
        end_time=ended + RESOLUTION_NS,
        instrumentation_scope=SCOPE,
    )
