"""Removes what reveals a simulated fault, since a real one has no flag, and no stack frame of the simulation."""

from __future__ import annotations

import json
import re
from typing import Any

_FLAG = "feature_flag."
_FLAG_EVENTS = "flags."
_METRICS = ("simulated_", "feature_flag_")
_FILE = r'[^"\n]*?\b(?:faults|servicekit/flags|shop/link)\.py'
_FRAME = re.compile(rf"{_FILE}:\d+ .*")
"""A frame in a log line's `exception_frames`."""
_TRACEBACK = re.compile(
    rf'^[ |]*File "{_FILE}", line \d+.*\n?'  # the frame,
    r'(?:(?![ |]*File ")[ |]{4}.*\n?)*',  # and the source lines that Python quotes below it
    re.MULTILINE,
)


def metric(name: str) -> bool:
    """Return whether a metric is about simulated faults or flags."""
    return name.startswith(_METRICS)


def trace(found: dict[str, Any]) -> dict[str, Any]:
    """Return a trace of Jaeger without signs of simulated faults."""
    for span in found["spans"]:
        span["tags"] = _tags(span["tags"])
        events = (event for event in span["logs"] or () if not _is_flags(event))
        span["logs"] = [{**event, "fields": _tags(event["fields"])} for event in events]
    for process in found["processes"].values():
        process["tags"] = _tags(process.get("tags") or ())
    return found


def line(text: str) -> str | None:
    """Return a log line without signs of simulated faults; None if the whole line is about flags."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return str(_value(text))
    if str(said.get("event")).startswith(_FLAG_EVENTS):
        return None
    left = {key: _value(value) for key, value in said.items() if not key.startswith(_FLAG)}
    return text if left == said else json.dumps(left, separators=(",", ":"), ensure_ascii=False)


def _is_flags(event: dict[str, Any]) -> bool:
    return any(
        field["key"].startswith(_FLAG) or (field["key"] == "event" and str(field["value"]).startswith(_FLAG))
        for field in event["fields"]
    )


def _tags(tags: Any) -> list[dict[str, Any]]:
    return [{**tag, "value": _value(tag["value"])} for tag in tags if not tag["key"].startswith(_FLAG)]


def _value(said: Any) -> Any:
    if isinstance(said, str):
        return _TRACEBACK.sub("", said)
    if isinstance(said, list):
        return [_value(one) for one in said if not (isinstance(one, str) and _FRAME.fullmatch(one))]
    return said
