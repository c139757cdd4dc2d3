"""Encodes a log line as JSON, whatever its values are, in a limited number of bytes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

MAX_LINE = 8192
"""The most bytes of a line. Docker splits lines at 16 KB, within the JSON; Loki rejects lines from 256 KB on."""

_MAX_VALUE = 1024  # characters of a value in a line that is too long

_KEPT = ("timestamp", "level", "service", "event", "trace_id", "span_id")
"""The fields that are kept if a line has too many."""


def dumps(event: Mapping[str, Any], default: Callable[[Any], Any] = repr) -> bytes:
    """Encode an event; a serializer for structlog's JSONRenderer.

    Args:
        event: The fields. If the line is too long, its values are shortened, and the field `cut` is added.
        default: Converts a value that JSON cannot represent.
    """
    line = _encoded(event, default)
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(value) for name, value in event.items()}, "cut": True}, default)
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(event[name]) for name in _KEPT if name in event}, "cut": True}, default)
    return line


def _encoded(event: Mapping[str, Any], default: Callable[[Any], Any]) -> bytes:
    # A request must not fail because JSON cannot represent a log field.
    try:
        return orjson.dumps(event, default=default)
    except TypeError:  # half a surrogate pair, an integer above 64 bits, a key that is not text, a list in itself
        kept = {name: value if isinstance(value, str | int | None) else repr(value) for name, value in event.items()}
        return json.dumps(kept, separators=(",", ":")).encode()


def _shortened(value: object) -> object:
    if isinstance(value, list):
        return _last_of(value)
    text = value if isinstance(value, str) else _text(value)
    return value if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "…"


def _last_of(items: list[object]) -> list[object]:
    """Keep as many of the last items of a list as fit: of a traceback, the innermost frames."""
    kept: list[object] = []
    room = _MAX_VALUE
    for item in reversed(items):
        short = _shortened(item)
        room -= len(_text(short))
        if kept and room < 0:
            break
        kept.insert(0, short)
    return kept


def _text(value: object) -> str:
    return _encoded({"": value}, repr).decode()[4:-1]
