"""Encodes ended spans as OTLP's ExportTraceServiceRequest; attributes that repeat are encoded only once.

The official encoder spends most of its time on attributes that are the same in every span, such as `db.system.name` and
the text of a statement. Here the encoded bytes of such an attribute are cached. That is valid because an attribute is a
length-delimited field, and serialised parts of a protobuf message can be concatenated. A database span takes a third of
the time (docs/performance.md).
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN_CONTEXT, StatusCode

_REMOTE_KNOWN, _REMOTE = 0x100, 0x200  # SpanFlags of trace.proto
_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS, _ATTRIBUTES = 1, 2, 2, 9  # field numbers, of trace.proto
_STATUSES = {code: Status(code=code.value) for code in StatusCode}  # type: ignore[arg-type]  # the numbers are the same
_NO_RESOURCE = Resource.get_empty()
# The fields of AnyValue (common.proto) for the types whose values are cached. Floats are not cached, since 0.0 equals
# -0.0, nor are lists, since equal lists may have elements of different types.
_FIELDS = {str: "string_value", int: "int_value", bool: "bool_value"}
_MAX_REMEMBERED = 1024  # characters; longer texts are not cached, because cached values stay in memory


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Return a serialised ExportTraceServiceRequest.

    Args:
        spans: Ended spans.
    """
    grouped: dict[Any, dict[Any, list[ReadableSpan]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        grouped[span.resource][span.instrumentation_scope].append(span)
    request = b""
    for scopes in grouped.values():
        resource_spans = b""
        for scoped in scopes.values():
            around = _around(scoped[0])
            scope_spans = around[1] + b"".join([_field(_SPANS, _span(span)) for span in scoped])
            resource_spans += _field(_SCOPE_SPANS, scope_spans)
        request += _field(_RESOURCE_SPANS, around[0] + resource_spans)
    return request


def _around(span: ReadableSpan) -> tuple[bytes, bytes]:
    """Return the resource and the scope of a span, as the official encoder encodes them."""
    [resource] = encode_spans([span]).resource_spans
    [scope] = resource.scope_spans
    return (
        ResourceSpans(resource=resource.resource, schema_url=resource.schema_url).SerializeToString(),
        ScopeSpans(scope=scope.scope, schema_url=scope.schema_url).SerializeToString(),
    )


def _span(span: ReadableSpan) -> bytes:
    context, parent, status = span.context, span.parent, span.status
    dropped = span.dropped_attributes or span.dropped_events or span.dropped_links
    if span.events or span.links or dropped or context is None or context.trace_state or status.description:
        return _official(span)
    encoded = Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type]  # the enumeration of the API begins at 0, OTLP's at 1
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        status=_STATUSES[status.status_code],
        flags=_REMOTE_KNOWN | (_REMOTE if parent and parent.is_remote else 0),
    )
    attributes = []
    given: Any = span.attributes or {}
    for name, value in given.items():
        kind = value.__class__
        remembered = kind in _FIELDS and (kind is not str or len(value) <= _MAX_REMEMBERED)
        attributes.append((_attribute if remembered else _attribute.__wrapped__)(name, value, kind))
    return encoded.SerializePartialToString() + b"".join(attributes)


@lru_cache(2048)
def _attribute(name: str, value: Any, kind: type) -> bytes:  # `kind` is needed: 1, 1.0 and True are equal keys
    if (field := _FIELDS.get(kind)) is not None:
        with suppress(ValueError):  # the value does not fit: the official encoder drops and logs it
            encoded = KeyValue(key=name, value=AnyValue(**{field: value})).SerializeToString()
            return _field(_ATTRIBUTES, encoded)
    # A resource is given, because the SDK would otherwise detect one for each span, in threads, which takes 1 ms.
    bare = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=_NO_RESOURCE, attributes={name: value})
    official = Span.FromString(_official(bare))
    return b"".join(_field(_ATTRIBUTES, attribute.SerializeToString()) for attribute in official.attributes)


def _official(span: ReadableSpan) -> bytes:
    encoded: bytes = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].SerializePartialToString()
    return encoded


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a message."""
    head, length = bytearray([number << 3 | 2]), len(content)
    while length > 0x7F:  # noqa: PLR2004  # a varint: seven bits a byte
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + content
