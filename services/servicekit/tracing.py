"""W3C Trace Context: the identity that a request keeps on its way through the services.

Every request runs inside a span context, so that its log lines, its exemplars, its errors and its calls to
other services carry the same trace id. Recording and exporting spans comes on top of this, here.
"""

import secrets
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import Token

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


HEADERS = ("traceparent", "tracestate")
"""The headers that carry the context, as `begin` takes them and `inject` writes them."""


def begin(headers: Mapping[str, str]) -> Token[context.Context]:
    """Make the span context of the work that starts now the current one.

    Args:
        headers: Those of HEADERS that the request has. A valid `traceparent` is continued; without one, or with an
            invalid one, a new trace begins.

    Returns:
        What `end` takes to restore the context that was current before.
    """
    parent_context = _propagator.extract(headers, context=context.Context())
    parent = trace.get_current_span(parent_context).get_span_context()
    own = trace.SpanContext(
        trace_id=parent.trace_id if parent.is_valid else _random_id(128),
        span_id=_random_id(64),
        is_remote=False,
        trace_flags=parent.trace_flags if parent.is_valid else trace.TraceFlags(trace.TraceFlags.SAMPLED),
        trace_state=parent.trace_state,
    )
    return context.attach(trace.set_span_in_context(trace.NonRecordingSpan(own), parent_context))


def end(token: Token[context.Context]) -> None:
    """Undo `begin`."""
    context.detach(token)


@contextmanager
def new_trace() -> Iterator[None]:
    """Run work that no request asked for, a background task's round for one, in a trace of its own."""
    token = begin({})
    try:
        yield
    finally:
        end(token)


def inject(headers: MutableMapping[str, str]) -> None:
    """Add `traceparent`, and `tracestate` where there is one, to the headers of an outgoing request."""
    _propagator.inject(headers)


def current_ids() -> tuple[str, str] | None:
    """Return the trace id and span id of the work at hand as lower-case hex, or None outside of any."""
    span_context = trace.get_current_span().get_span_context()
    if not span_context.is_valid:
        return None
    return trace.format_trace_id(span_context.trace_id), trace.format_span_id(span_context.span_id)


def traceresponse() -> str | None:
    """Return the current context as a `traceresponse` header (W3C Trace Context Level 2, draft), if any."""
    span_context = trace.get_current_span().get_span_context()
    if not span_context.is_valid:
        return None
    trace_id, span_id = (
        trace.format_trace_id(span_context.trace_id),
        trace.format_span_id(span_context.span_id),
    )
    return f"00-{trace_id}-{span_id}-{span_context.trace_flags:02x}"


def _random_id(bits: int) -> int:
    return secrets.randbits(bits) or 1  # all-zero ids are invalid
