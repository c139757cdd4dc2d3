"""Reads export requests in OTLP's two encodings, so that one bad record costs no other.

Most requests are right, and are read at once by the library. What it refuses is looked at again here: text that is no
clean Unicode is kept with U+FFFD in place of what is wrong, and of JSON only the records that make no sense are left
out.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

_HEX_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_VALUES = frozenset(field.json_name for field in AnyValue.DESCRIPTOR.fields)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = "\ufffd"
_MAX_DEPTH = 100  # of messages in messages, as the library's
_MAX_VARINT = 10  # bytes
_MORE = 0x80  # the bit of a varint's byte, above its seven of the number, that says that another byte follows
_SIZES = {1: 8, 5: 4}  # of protobuf's wire types of a fixed size; 0 is a varint, 2 has its size before it

# Where the records of a request are: the names of the lists and the messages in them, from the outside in.
_Levels = tuple[tuple[str, type[Message]], ...]
_LEVELS: Mapping[type[Message], _Levels] = {
    ExportTraceServiceRequest: (("resourceSpans", ResourceSpans), ("scopeSpans", ScopeSpans), ("spans", Span)),
    ExportLogsServiceRequest: (("resourceLogs", ResourceLogs), ("scopeLogs", ScopeLogs), ("logRecords", LogRecord)),
}
_LEVELS_DEEP = 3
_FIELDS = {
    field.json_name: field.name
    for message in (*(kind() for kind in _LEVELS), ResourceSpans(), ScopeSpans(), ResourceLogs(), ScopeLogs())
    for field in message.DESCRIPTOR.fields
}
_BROKEN = (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError)


class Malformed(ValueError):
    """The body is no export request."""


def read_protobuf(body: bytes, message: Message) -> None:
    """Fill the message.

    Raises:
        Malformed: It is none.
    """
    try:
        try:
            message.ParseFromString(body)
        except DecodeError:
            message.ParseFromString(_with_valid_text(body, message.DESCRIPTOR))
    except DecodeError:
        raise Malformed from None


def read_json(body: bytes, message: Message) -> int:
    """Fill the message; say how many records were left out since they make no sense.

    Raises:
        Malformed: Nothing of it makes sense.
    """
    try:
        fields = load_json(body)
        try:
            _parse(fields, message)
        except _BROKEN:
            message.Clear()
            kept, lost = _sift(fields, message, _LEVELS[type(message)])
            if not kept:
                raise
            return lost
    except _BROKEN:  # without the library's words: they quote what was sent
        raise Malformed from None
    return 0


# -- JSON


def load_json(body: bytes) -> Any:
    """Read JSON, with U+FFFD in its texts in place of what is no text.

    Raises:
        ValueError: It is none.
        RecursionError: It is nested too deeply.
    """
    try:
        return orjson.loads(body)
    except ValueError:
        # It refuses half a surrogate pair, numbers out of range and bytes that are no text; and a NaN that stands there
        # without quotes, as careless encoders write it. Here it is read as OTLP has it, with quotes.
        return _with_text(json.loads(body.decode(errors="replace"), parse_constant=str))


def _with_text(value: Any) -> Any:
    """Put U+FFFD in place of each half of a surrogate pair, however deep."""
    whole = [value]
    todo: list[Any] = [whole]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            items = [(_clean(name), _clean(inner)) for name, inner in one.items()]
            one.clear()
            one.update(items)
        else:
            one[:] = map(_clean, one)
        todo += (inner for inner in (one.values() if isinstance(one, dict) else one) if isinstance(inner, dict | list))
    return whole[0]


def _clean(value: Any) -> Any:
    return _SURROGATE.sub(_NO_TEXT, value) if isinstance(value, str) else value


def _parse(fields: Any, message: Message, depth: int = _MAX_DEPTH) -> None:
    if not isinstance(fields, dict):
        raise Malformed
    json_format.ParseDict(_with_binary_ids(fields), message, ignore_unknown_fields=True, max_recursion_depth=depth)


def _sift(fields: Mapping[str, Any], message: Message, levels: _Levels) -> tuple[int, int]:
    """Fill in the records that can be read, without those of a resource or scope that cannot be; count both kinds."""
    (name, kind), *deeper = levels
    found = fields.get(name) or []
    if not isinstance(found, list):
        raise Malformed
    parts = getattr(message, _FIELDS[name])
    kept = lost = 0
    for one in (one for one in found if one is not None):
        if not deeper:
            part = _readable(one, kind)
            good, bad = (0, 1) if part is None else (1, 0)
        elif isinstance(one, dict):
            part = _readable({key: value for key, value in one.items() if key != deeper[0][0]}, kind)
            good, bad = _sift(one, part or kind(), tuple(deeper))
            if part is None:
                good, bad = 0, good + bad
        else:
            raise Malformed
        kept, lost = kept + good, lost + bad
        if part is not None and good:
            parts.append(part)
    return kept, lost


def _readable(fields: Any, kind: type[Message]) -> Message | None:
    """Read a part of a request alone, None if it makes no sense: what is wrong with it, or too deep, costs no other."""
    message = kind()
    try:
        _parse(_repaired(fields), message, _MAX_DEPTH - _LEVELS_DEEP)
    except _BROKEN:
        return None
    return message


def _repaired(value: Any) -> Any:
    """Undo what the library refuses and other receivers take: nothing in a list, two values of an attribute."""
    match value:
        case list():
            return [_repaired(one) for one in value if one is not None]
        case dict():
            last = next((name for name in reversed(value) if name in _VALUES), None)
            return {name: _repaired(one) for name, one in value.items() if name == last or name not in _VALUES}
    return value


def _with_binary_ids(value: Any) -> Any:
    """Turn the ids of OTLP's JSON, which are hexadecimal, into protobuf's Base64."""
    if isinstance(value, list):
        return [_with_binary_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    return dict(_converted(value))


def _converted(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if name in _HEX_IDS and isinstance(value, str):
            yield name, base64.b64encode(binascii.unhexlify(value)).decode()
        else:
            yield name, _with_binary_ids(value)


# -- protobuf


def _with_valid_text(data: bytes, kind: Any, depth: int = 0) -> bytes:
    """Copy a message of a kind, which is a Descriptor, with U+FFFD in its texts in place of what is no UTF-8.

    What is nested too deeply is left empty.

    Raises:
        DecodeError: It is no message.
    """
    if depth >= _MAX_DEPTH:
        return b""
    copied = bytearray()
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        match tag & 7:
            case wire if wire in _SIZES:
                position += _SIZES[wire]
            case 0:
                _, position = _varint(data, position)
            case 2:
                size, position = _varint(data, position)
                part = data[position : position + size]
                if len(part) < size:
                    raise DecodeError
                field = kind.fields_by_number.get(tag >> 3)
                position += size
                if field is not None and field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE}:
                    if field.type == FieldDescriptor.TYPE_STRING:
                        part = part.decode(errors="replace").encode()
                    else:
                        part = _with_valid_text(part, field.message_type, depth + 1)
                    copied += _as_varint(tag) + _as_varint(len(part)) + part
                    continue
            case _:
                raise DecodeError
        copied += data[start:position]
    return bytes(copied)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of protobuf's; give it and the position behind it."""
    value = 0
    for count, byte in enumerate(data[position : position + _MAX_VARINT]):
        value |= byte % _MORE << 7 * count
        if byte < _MORE:
            return value, position + count + 1
    raise DecodeError


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value >= _MORE:
        written.append(value % _MORE | _MORE)
        value >>= 7
    written.append(value)
    return bytes(written)
