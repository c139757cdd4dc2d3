"""W3C Trace Context and spans: the ids that a request keeps on its way through the services, and what it did.

Every request has a span context, so that its log lines, its errors and its calls to other services have the same trace
id. Whether spans are recorded is configured separately; see `setup`.

Spans of calls and of statements are made here with OpenTelemetry's API, not by the official instrumentations. Those
record whole URLs, and statements with the values in them. The spans made here have templates, never values.
"""

import random
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

SCOPE = "servicekit"
"""The instrumentation scope of the spans that are made here."""

_w3c = TraceContextTextMapPropagator()


def inject(headers: MutableMapping[str, str]) -> None:
    """Add the context to the headers of an outgoing request, in the formats of OTEL_PROPAGATORS.

    By default the headers are `traceparent`, and `tracestate` and `baggage` if the context has them.
    """
    from opentelemetry import propagate  # noqa: PLC0415  # reads the environment when it is imported; see `environment`

    propagate.inject(headers)


def current_ids() -> tuple[str, str] | None:
    """Return the current trace id and span id as lower-case hex, or None if there is no current span."""
    span_context = trace.get_current_span().get_span_context()
    if not span_context.is_valid:
        return None
    return f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}"


def is_recorded() -> bool:
    """Whether the current span is recorded, so that its trace can be found by the trace id."""
    return trace.get_current_span().is_recording()


def traceparent() -> str | None:
    """Return the current context as a `traceparent` header; `traceresponse` (W3C, draft) has the same form."""
    span_context = trace.get_current_span().get_span_context()
    return _traceparent(span_context) if span_context.is_valid else None


def _traceparent(of: trace.SpanContext) -> str:
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"


def describe(name: str | None = None, attributes: Mapping[str, AttributeValue] | None = None) -> None:
    """Rename the current span and add attributes to it, if it is recorded."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    if name is not None:
        span.update_name(name)
    if attributes:
        span.set_attributes(attributes)


def failed(error_type: str) -> None:
    """Mark the current span as failed.

    Args:
        error_type: What went wrong, of low cardinality: an exception's type or a status.
    """
    _mark_failed(trace.get_current_span(), error_type)


def raised(error: BaseException) -> None:
    """Add an exception to the current span as an event. `exporter.Privacy` says what of it leaves the process."""
    trace.get_current_span().record_exception(error)


def mark() -> context.Context:
    """Return the current context, for `abandon`."""
    return context.get_current()


def abandon(before: context.Context) -> None:
    """Restore an earlier context, and end the current span, whose work broke off before it could end the span itself.

    Args:
        before: The context that `mark` returned.
    """
    span = trace.get_current_span()
    if context.get_current() is not before:
        span.end()
        context.attach(before)


class Work:
    """Work with a span of its own, as a context manager.

    If an exception leaves the block, the span is marked as failed with the exception's type, and the exception is added
    as an event. Its message does not leave the process; see `exporter.Privacy`.
    """

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._failed = False

    def set(self, name: str, value: AttributeValue) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        """Mark the span as failed; see `failed`."""
        self._failed = True
        _mark_failed(self._span, error_type)

    @property
    def traceparent(self) -> str:
        """The span's ids as a `traceparent` header."""
        return _traceparent(self._span.get_span_context())

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._span.record_exception(error)
            if not self._failed:
                # Our own exceptions say what it means for the caller; their cause says what happened.
                self.fail(type(error.__cause__ or error).__qualname__)
        context.detach(self._token)
        self._span.end()


class _Nothing(Work):
    """Is used if nothing is recorded; it leaves the context unchanged."""

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        pass

    def fail(self, error_type: str) -> None:
        pass


NOTHING = _Nothing()
"""Creates no span, and leaves the context unchanged."""


class Tracer:
    """Creates spans for a service's own work and its calls. The Flask instrumentation creates those of requests.

    Args:
        tracer: OpenTelemetry's tracer; None records nothing.
    """

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer

    def span(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> Work:
        """Start a span for the service's own work, if the current trace is recorded; otherwise return NOTHING."""
        return self._child(name, trace.SpanKind.INTERNAL, attributes)

    def client(self, name: str, attributes: Mapping[str, AttributeValue]) -> Work:
        """Start a client span for a call, if the current trace is recorded; otherwise return NOTHING.

        So periodic work without a trace, such as a query to the database each second, does not start traces.
        """
        return self._child(name, trace.SpanKind.CLIENT, attributes)

    def root(self, name: str, attributes: Mapping[str, AttributeValue], cause: str | None = None) -> Work:
        """Start a new trace for work that does not belong to a request.

        Args:
            name: The span's name.
            attributes: The span's attributes.
            cause: The `traceparent` of the span that led to this work; the new trace links to it.
        """
        if self._tracer is None:
            return identity({})
        links = []
        if cause is not None:
            origin = trace.get_current_span(_w3c.extract({"traceparent": cause}, context=context.Context()))
            links = [trace.Link(origin.get_span_context())]  # the SDK omits a link to an invalid context
        return Work(self._tracer.start_span(name, context.Context(), attributes=attributes, links=links))

    def _child(self, name: str, kind: trace.SpanKind, attributes: Mapping[str, AttributeValue] | None) -> Work:
        if self._tracer is None or not is_recorded():
            return NOTHING
        return Work(self._tracer.start_span(name, kind=kind, attributes=attributes))


def _mark_failed(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(trace.StatusCode.ERROR)


class _Identity(Work):
    """Gives work a trace id and a span id, and passes on the context that came with it, but records nothing."""

    def __init__(self, span: trace.Span, around: context.Context) -> None:
        super().__init__(span)
        self._around = around

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span, self._around))
        return self


class _Headers(Getter[Mapping[str, Any]]):
    """Reads headers from WSGI's environment, by the names that propagators use, which are those on the wire."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        """See `Getter`."""
        value = carrier.get(header_variable(key))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        """See `Getter`."""
        return [name[5:].replace("_", "-").lower() for name in carrier if name.startswith("HTTP_")]


_headers = _Headers()


@lru_cache(64)  # limited, because names may be text from a client
def header_variable(name: str) -> str:
    """Return the key of a header in WSGI's environment."""
    return f"HTTP_{name.upper().replace('-', '_')}"


def header_names() -> set[str]:
    """Return the names of the headers that carry a context, by OTEL_PROPAGATORS."""
    from opentelemetry import propagate  # noqa: PLC0415  # as in `inject`

    return propagate.get_global_textmap().fields


def identity(environ: Mapping[str, Any]) -> Work:
    """Start work that is not recorded, but has ids. A valid context in the headers is continued, with its flags.

    A new trace is marked as not sampled. Nothing is recorded here, and a "sampled" flag would make the called services
    record the trace, whatever their own sampling ratio is.

    Args:
        environ: WSGI's environment of a request; empty for work that does not belong to a request.
    """
    from opentelemetry import propagate  # noqa: PLC0415  # as in `inject`

    around = context.Context()
    if environ:
        around = propagate.extract(environ, context=around, getter=_headers)
    parent = trace.get_current_span(around).get_span_context()
    own = trace.SpanContext(
        trace_id=parent.trace_id if parent.is_valid else _random_id(128),
        span_id=_random_id(64),
        is_remote=False,
        trace_flags=parent.trace_flags if parent.is_valid else trace.TraceFlags(),
        trace_state=parent.trace_state,
    )
    return _Identity(trace.NonRecordingSpan(own), around)


def unsampled() -> Work:
    """Start work that is in no trace, neither here nor in the services that it calls, such as a periodic task."""
    own = trace.SpanContext(_random_id(128), _random_id(64), is_remote=False)
    return Work(trace.NonRecordingSpan(own))


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1  # all-zero ids are invalid
