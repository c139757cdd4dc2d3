"""W3C Trace Context and spans: the identity that a request keeps on its way through the services, and what it did.

Every request runs inside a span context, so that its log lines, its errors and its calls to other services carry the
same trace id. Whether anything is recorded is another matter: see `setup`.

Spans of calls and of statements are made here, by OpenTelemetry's API, and not by the official instrumentations. Those
record whole URLs, and statements as they are sent with what was put into them; these record templates, never values.
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
    """Add the context to the headers of an outgoing request, as OTEL_PROPAGATORS wants it.

    By default these are `traceparent`, `tracestate` and `baggage`, where there are any.
    """
    from opentelemetry import propagate  # noqa: PLC0415  # reads the environment when it is imported; see `environment`

    propagate.inject(headers)


def current_ids() -> tuple[str, str] | None:
    """Return the trace id and span id of the work at hand as lower-case hex, or None outside of any."""
    span_context = trace.get_current_span().get_span_context()
    if not span_context.is_valid:
        return None
    return f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}"


def is_recorded() -> bool:
    """Whether the work at hand is recorded: whether its trace id will open a trace."""
    return trace.get_current_span().is_recording()


def traceparent() -> str | None:
    """Return the current context as a `traceparent` header; `traceresponse` (W3C, draft) has the same form."""
    span_context = trace.get_current_span().get_span_context()
    return _traceparent(span_context) if span_context.is_valid else None


def _traceparent(of: trace.SpanContext) -> str:
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"


def describe(name: str | None = None, attributes: Mapping[str, AttributeValue] | None = None) -> None:
    """Name the span at hand, and add attributes to it, if it is recorded."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    if name is not None:
        span.update_name(name)
    if attributes:
        span.set_attributes(attributes)


def failed(error_type: str) -> None:
    """Say that the work at hand failed.

    Args:
        error_type: What went wrong, of few possible values: an exception's type, a status.
    """
    _mark_failed(trace.get_current_span(), error_type)


def raised(error: BaseException) -> None:
    """Add an exception to the span at hand, as an event; see `exporter.Privacy` for what of it leaves the process."""
    trace.get_current_span().record_exception(error)


def mark() -> context.Context:
    """Remember what is current, for `abandon`."""
    return context.get_current()


def abandon(before: context.Context) -> None:
    """Make current again what was, and end the span of work that broke off before anybody could.

    Args:
        before: What `mark` gave.
    """
    span = trace.get_current_span()
    if context.get_current() is not before:
        span.end()
        context.attach(before)


class Work:
    """Work within a trace, in a span of its own: a context manager.

    An exception that leaves it is why it failed: by its type, and as an event of the span. What it says leaves the
    process with neither; see `exporter.Privacy`.
    """

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._failed = False

    def set(self, name: str, value: AttributeValue) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        """Say that the work failed; see `failed`."""
        self._failed = True
        _mark_failed(self._span, error_type)

    @property
    def traceparent(self) -> str:
        """Its identity as a `traceparent` header."""
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
                # Our own exceptions say what it means for the caller; what they were raised from says what happened.
                self.fail(type(error.__cause__ or error).__qualname__)
        context.detach(self._token)
        self._span.end()


class _Nothing(Work):
    """Stands in where nothing is recorded: the context stays as it is."""

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
"""No span: what is current stays current."""


class Tracer:
    """Makes spans of a service's own work and of its calls; those of its requests are the Flask instrumentation's.

    Args:
        tracer: OpenTelemetry's. Without one, nothing is recorded.
    """

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer

    def span(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> Work:
        """Begin a piece of the service's own work, inside a trace that is recorded; elsewhere nothing."""
        return self._child(name, trace.SpanKind.INTERNAL, attributes)

    def client(self, name: str, attributes: Mapping[str, AttributeValue]) -> Work:
        """Begin a call to somebody else, inside a trace that is recorded; elsewhere nothing.

        Work that nobody asked for, such as a look at the database each second, makes no traces of its own.
        """
        return self._child(name, trace.SpanKind.CLIENT, attributes)

    def root(self, name: str, attributes: Mapping[str, AttributeValue], cause: str | None = None) -> Work:
        """Begin a trace for work that no request asked for.

        Args:
            name: What is done.
            attributes: What is known about it.
            cause: The `traceparent` of what led to it, which the new trace links to.
        """
        if self._tracer is None:
            return identity({})
        links = []
        if cause is not None:
            origin = trace.get_current_span(_w3c.extract({"traceparent": cause}, context=context.Context()))
            links = [trace.Link(origin.get_span_context())]  # the SDK leaves out a link to nothing
        return Work(self._tracer.start_span(name, context.Context(), attributes=attributes, links=links))

    def _child(self, name: str, kind: trace.SpanKind, attributes: Mapping[str, AttributeValue] | None) -> Work:
        if self._tracer is None or not is_recorded():
            return NOTHING
        return Work(self._tracer.start_span(name, kind=kind, attributes=attributes))


def _mark_failed(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(trace.StatusCode.ERROR)


class _Identity(Work):
    """Gives work ids, hands on what came with it, and records nothing."""

    def __init__(self, span: trace.Span, around: context.Context) -> None:
        super().__init__(span)
        self._around = around

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span, self._around))
        return self


class _Headers(Getter[Mapping[str, Any]]):
    """Reads a request's headers where WSGI has them: propagators ask for each by the name that it has on the wire."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        """See `Getter`."""
        value = carrier.get(header_variable(key))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        """See `Getter`."""
        return [name[5:].replace("_", "-").lower() for name in carrier if name.startswith("HTTP_")]


_headers = _Headers()


@lru_cache(64)  # names may hold a client's text
def header_variable(name: str) -> str:
    """Return where WSGI's environment has a header."""
    return f"HTTP_{name.upper().replace('-', '_')}"


def header_names() -> set[str]:
    """Return the headers that carry a context, as OTEL_PROPAGATORS wants it."""
    from opentelemetry import propagate  # noqa: PLC0415  # as in `inject`

    return propagate.get_global_textmap().fields


def identity(environ: Mapping[str, Any]) -> Work:
    """Begin work that is not recorded, but has ids: a valid context in the headers is continued, with its flags.

    A new trace is not sampled: nobody here records it, and whom it is handed on to would take that for a decision
    that it is to be recorded, whatever share they record themselves.

    Args:
        environ: WSGI's environment of a request; empty for work that no request asked for.
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
    """Begin work that no trace shows, here or at those it calls: what is done again and again for its own sake."""
    own = trace.SpanContext(_random_id(128), _random_id(64), is_remote=False)
    return Work(trace.NonRecordingSpan(own))


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1  # all-zero ids are invalid
