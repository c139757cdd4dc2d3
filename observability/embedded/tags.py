"""What a span says as Jaeger's tags: OTLP's attributes, scope, kind and status, each a key and a value with a type."""

import base64
import json
import math
from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from observability.embedded import units

Tag = tuple[str, str, Any]
"""Key, Jaeger's name of the type, and value: a str, int, float or bool, or bytes for `binary`."""

EVENT_NAME = "event"
"""The key of an event's name among its fields."""

KINDS = ("", "internal", "server", "client", "producer", "consumer")
"""Jaeger's name of each kind of span, by OTLP's number."""

_TYPES = {
    "string_value": "string",
    "int_value": "int64",
    "bool_value": "bool",
    "double_value": "float64",
    "bytes_value": "binary",
}
_STATUSES = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}
_SEPARATORS = {ord(char): f"\\u{ord(char):04x}" for char in "\u2028\u2029"}  # as Go's JSON has them
_ESCAPED = _SEPARATORS | {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
_NO_NAME = "missing-service-name"  # as Jaeger calls them
_EMPTY_NAME = "empty-service-name"


def of_span(span: Span, kind: int) -> list[Tag]:
    """Give a span's own tags."""
    return of_attributes(span.attributes) + beside_attributes(span, kind)


def beside_attributes(span: Span, kind: int) -> list[Tag]:
    """Give the tags that a span has from what is not an attribute in OTLP."""
    tags: list[Tag] = []
    if 0 < kind < len(KINDS):
        tags.append(("span.kind", "string", KINDS[kind]))
    status = span.status
    if (code := _STATUSES.get(status.code)) is not None:
        tags.append(("otel.status_code", "string", code))
    if status.code == Status.STATUS_CODE_ERROR:
        tags.append(("error", "bool", True))
    if status.message:
        tags.append(("otel.status_description", "string", status.message))
    if span.trace_state:
        tags.append(("w3c.tracestate", "string", span.trace_state))
    return tags


def of_event(event: Span.Event) -> list[Tag]:
    """Give the fields of a span's event."""
    fields = of_attributes(event.attributes)
    return [(EVENT_NAME, "string", event.name), *fields] if event.name else fields


def of_scope(scope: InstrumentationScope) -> list[Tag]:
    """Give the tags that a span has from its instrumentation scope."""
    named = (("otel.scope.name", scope.name), ("otel.scope.version", scope.version))
    return [(key, "string", value) for key, value in named if value]


def of_resource(resource: Resource) -> list[Tag]:
    """Give the tags of a process."""
    return [tag for tag in of_attributes(resource.attributes) if tag[0] != "service.name"]


def service_name(resource: Resource) -> str:
    """Give the service that a resource belongs to."""
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return text(*_typed(attribute.value)) or _EMPTY_NAME
    return _NO_NAME


def of_attributes(attributes: Iterable[KeyValue]) -> list[Tag]:
    """Give attributes as tags, in their order."""
    return [(attribute.key, *_typed(attribute.value)) for attribute in attributes]


def text(kind: str, value: Any) -> str:
    """Give a tag's value as the text that a search for it says."""
    match kind:
        case "string":
            return str(value)
        case "bool":
            return "true" if value else "false"
        case "float64":
            return f"{value:.10g}" if math.isfinite(value) else units.format_number(value)
        case "binary":
            return bytes(value).hex()
    return str(value)


def _typed(value: AnyValue) -> tuple[str, Any]:
    which = value.WhichOneof("value")
    if which is None:
        return "string", ""
    kind = _TYPES.get(which)
    if kind is not None:
        return kind, getattr(value, which)
    return "string", json_text(value).translate(_ESCAPED)


def json_text(value: AnyValue) -> str:
    """Give a value as Go's JSON has it; '' where that is impossible, as the Collector's library does."""
    try:
        return _json(value).translate(_SEPARATORS)
    except ValueError:  # not a number, or infinite
        return ""


def _json(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case None:
            return "null"
        case "array_value":
            return f"[{','.join(map(_json, value.array_value.values))}]"
        case "kvlist_value":
            members = {one.key: _json(one.value) for one in value.kvlist_value.values}
            return "{" + ",".join(f"{_quoted(key)}:{members[key]}" for key in sorted(members)) + "}"
        case "bytes_value":
            return _quoted(base64.b64encode(value.bytes_value).decode())
        case "double_value":
            return units.format_json_number(value.double_value)
        case str(which):
            return _quoted(getattr(value, which))


def _quoted(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False)
