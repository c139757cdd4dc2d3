"""A log line as JSON: whatever the values are, and never too long."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

MAX_LINE = 8192
"""Bytes of a line. Docker cuts lines at 16 KB, in the middle of the JSON; Loki refuses them from 256 KB."""

_MAX_VALUE = 1024  # characters of a value in a line that is too long

_KEPT = ("timestamp", "level", "service", "event", "trace_id", "span_id")
"""What is left of a line that has too many fields."""


def dumps(event: Mapping[str, Any], default: Callable[[Any], Any] = repr) -> bytes:
    """Encode an event; a serializer for structlog's JSONRenderer.

    Args:
        event: The fields. Of a line that is too long, each value is shortened and the field `cut` is added.
        default: Gives a value for one that JSON has no form for.
    """
    line = _encoded(event, default)
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(value) for name, value in event.items()}, "cut": True}, default)
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(event[name]) for name in _KEPT if name in event}, "cut": True}, default)
    return line


def _encoded(event: Mapping[str, Any], default: Callable[[Any], Any]) -> bytes:
    # A field that JSON has no form for must not cost a request its answer.
    try:
        return orjson.dumps(event, default=default)
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a key that is no string, a list in itself
        kept = {name: value if isinstance(value, str | int | None) else repr(value) for name, value in event.items()}
        return json.dumps(kept, separators=(",", ":")).encode()


def _shortened(value: object) -> object:
    if isinstance(value, list):
        return _last_of(value)
    text = value if isinstance(value, str) else _text(value)
    return value if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "…"


def _last_of(items: list[object]) -> list[object]:
    """Keep what fits of a list: of a traceback, the innermost frames."""
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
