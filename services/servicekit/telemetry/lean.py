"""OpenTelemetry's tracing API at a fraction of the SDK's cost: plain objects, which become OTLP off the request.

The same spans as the SDK's, with its export pipeline behind them; docs/performance.md has what each costs. What is left
out nobody here uses: events and messages of exceptions (see `tracing`), limits on attributes (ours are few), hooks.
`TRACING=sdk` chooses the SDK and `opentelemetry-instrumentation-flask` instead; the same tests hold for both.
"""

import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from time import time_ns
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.util.types import AttributeValue

_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_UNSAMPLED = trace.TraceFlags(trace.TraceFlags.DEFAULT)


class Span(trace.Span):
    """A span that is recorded. Made by `Tracer.start_span`."""

    def __init__(  # noqa: PLR0913, PLR0917  # what makes a span
        self,
        name: str,
        span_context: trace.SpanContext,
        parent: trace.SpanContext | None,
        kind: trace.SpanKind,
        attributes: dict[str, AttributeValue],
        links: Sequence[trace.Link],
        on_end: Callable[["Span"], None],
    ) -> None:
        self.name = name
        self.span_context = span_context
        self.parent = parent
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.status = trace.StatusCode.UNSET
        self.ended_ns = 0
        self._on_end = on_end
        self.started_ns = time_ns()

    def get_span_context(self) -> trace.SpanContext:
        """See OpenTelemetry's API."""
        return self.span_context

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """See OpenTelemetry's API."""
        if not self.ended_ns:
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """See OpenTelemetry's API."""
        if not self.ended_ns:
            self.attributes.update(attributes)

    def update_name(self, name: str) -> None:
        """See OpenTelemetry's API."""
        if not self.ended_ns:
            self.name = name

    def is_recording(self) -> bool:
        """See OpenTelemetry's API."""
        return not self.ended_ns

    def set_status(self, status: trace.Status | trace.StatusCode, description: str | None = None) -> None:
        """See OpenTelemetry's API. The description is not kept: it may quote somebody's data."""
        del description
        if not self.ended_ns:
            self.status = status.status_code if isinstance(status, trace.Status) else status

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Keep nothing: the shop's events are log lines, which carry the span's id."""

    def record_exception(self, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: an exception's message may quote somebody's data; `error.type` says what failed."""

    def end(self, end_time: int | None = None) -> None:
        """See OpenTelemetry's API."""
        if not self.ended_ns:
            self.ended_ns = end_time or time_ns()
            self._on_end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Tracer(trace.Tracer):
    """Makes spans: of a trace that came with a decision by that, of a new one for a share.

    Args:
        share: How many of the traces that begin here are kept, from 0 to 1.
        on_end: Is handed each span that ends; must be quick.
    """

    def __init__(self, share: float, on_end: Callable[[Span], None]) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(share)
        self._on_end = on_end

    def start_span(  # noqa: PLR0913, PLR0917  # the API's
        self,
        name: str,
        context: context.Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
    ) -> trace.Span:
        """See OpenTelemetry's API. What is not sampled is a span that records nothing and hands on its ids."""
        del record_exception, set_status_on_exception
        parent: trace.SpanContext | None = trace.get_current_span(context).get_span_context()
        assert parent is not None  # noqa: S101
        if parent.is_valid:
            trace_id, flags, state = parent.trace_id, parent.trace_flags, parent.trace_state
        else:
            trace_id, parent, state = random.getrandbits(128) or 1, None, None
            flags = _SAMPLED if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound else _UNSAMPLED
        own = trace.SpanContext(trace_id, random.getrandbits(64) or 1, False, flags, state)  # noqa: FBT003
        if not flags & trace.TraceFlags.SAMPLED:
            return trace.NonRecordingSpan(own)
        span = Span(name, own, parent, kind, dict(attributes) if attributes else {}, links or (), self._on_end)
        if start_time is not None:
            span.started_ns = start_time
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # the API's own decorator says it in other words
        self, name: str, *args: Any, end_on_exit: bool = True, **kwargs: Any
    ) -> Iterator[trace.Span]:
        """See OpenTelemetry's API."""
        with trace.use_span(self.start_span(name, *args, **kwargs), end_on_exit=end_on_exit) as span:
            yield span


class Encoder:
    """Writes spans as OTLP's ExportTraceServiceRequest, in protobuf's wire format.

    With the generated classes a span takes some 60 us, most of it for texts that are the same in every span. Here such
    a piece is encoded once. Field numbers: opentelemetry/proto/trace/v1/trace.proto.

    Args:
        resource: Whose spans they are.
        scope: The name and version of what makes them.
        attributes: Says which attributes leave the process, by name.
    """

    def __init__(self, resource: Resource, scope: tuple[str, str], attributes: Callable[[str], bool]) -> None:
        self._resource = _message(
            1, b"".join(_attribute(1, name, value) for name, value in resource.attributes.items())
        )
        self._scope = _message(1, _text(1, scope[0]) + _text(2, scope[1]))

        @lru_cache(2048)
        def attribute(name: str, value: Any, _kind: Any) -> bytes:  # 1, 1.0 and True are one key without their kinds
            return _attribute(9, name, value) if attributes(name) else b""

        self._attribute = attribute

    def encode(self, spans: Sequence[Span]) -> bytes:
        """Return a request with these spans."""
        scoped = _message(2, self._scope + b"".join([self._span(span) for span in spans]))
        return _message(1, self._resource + scoped)

    def _span(self, span: Span) -> bytes:
        own, parent, attribute = span.span_context, span.parent, self._attribute
        pieces = [
            b"\x0a\x10", own.trace_id.to_bytes(16, "big"),
            b"\x12\x08", own.span_id.to_bytes(8, "big"),
            _name_and_kind(span.name, span.kind.value + 1),
            _TIMES.pack(0x39, span.started_ns, 0x41, span.ended_ns),
        ]  # fmt: skip
        if parent is not None:
            pieces += b"\x22\x08", parent.span_id.to_bytes(8, "big")
        for name, value in span.attributes.items():
            kind: Any = value.__class__
            pieces.append((attribute if kind in _REMEMBERED else attribute.__wrapped__)(name, value, kind))
        pieces += [_link(link.context) for link in span.links if link.context.is_valid]
        if span.status is not trace.StatusCode.UNSET:
            pieces.append(b"\x7a\x02\x18" + bytes((span.status.value,)))
        remote = _REMOTE if parent is not None and parent.is_remote else _LOCAL
        pieces.append(_FLAGS.pack(0x85, 0x01, own.trace_flags | remote))
        return _message(2, b"".join(pieces))


_TIMES = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<BBI")
_REMEMBERED = frozenset({str, int, bool, float})  # of a list, equal ones may have elements of different kinds
_LOCAL, _REMOTE = 0x100, 0x300  # "is known whether remote", and "is"


def _link(linked: trace.SpanContext) -> bytes:
    flags = struct.pack("<BI", 0x35, linked.trace_flags | (_REMOTE if linked.is_remote else _LOCAL))
    ids = b"\x0a\x10" + linked.trace_id.to_bytes(16, "big") + b"\x12\x08" + linked.span_id.to_bytes(8, "big")
    return _message(13, ids + flags)


@lru_cache(256)
def _name_and_kind(name: str, kind: int) -> bytes:
    return _text(5, name) + b"\x30" + bytes((kind,))


def _attribute(field: int, name: str, value: Any) -> bytes:
    return _message(field, _text(1, name) + _message(2, _value(value)))


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x10" + bytes((value,))
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return struct.pack("<Bd", 0x21, value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _message(5, b"".join(_message(1, _value(item)) for item in value))
    return _text(1, str(value))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _message(field: int, content: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
