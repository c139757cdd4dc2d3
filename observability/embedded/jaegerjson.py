"""Traces in the form of Jaeger's JSON, and with the warnings that Jaeger finds in them."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability.embedded import tags, units
from observability.embedded.spans import MAX_SPANS, MAX_TRACE, StoredSpan, StoredTrace

_US = 1_000
_S = 1_000_000_000
_SAFE_INTEGER = 2**53 - 1  # above it, JavaScript's numbers lose digits, so Jaeger writes text


def trace_json(trace: StoredTrace) -> dict[str, Any]:
    """Give a trace as Jaeger does."""
    trace_id = hex_id(trace.id)
    warnings = _warnings(trace.spans)
    names: dict[tuple[str, bytes], str] = {}  # of processes in this answer
    processes = {}
    spans = []
    for span in trace.spans:
        origin = span.origin
        key = (origin.service, origin.resource.SerializeToString(deterministic=True))
        if key not in names:
            names[key] = f"p{len(names) + 1}"
            processes[names[key]] = {
                "serviceName": origin.service,
                "tags": _fields(_sorted(tags.of_resource(origin.resource))),
            }
        spans.append(_span(trace_id, span, names[key], warnings.get(span.id)))
    cut = [f"the trace has more than {MAX_SPANS} spans or {MAX_TRACE >> 20} MiB, and is cut"] if trace.is_cut else None
    return {"traceID": trace_id, "spans": spans, "processes": processes, "warnings": cut}


def hex_id(trace_id: bytes) -> str:
    """Write a trace's id as Jaeger does: one of 64 bits in 16 digits."""
    return trace_id.hex() if any(trace_id[:8]) else trace_id[8:].hex()


def _span(trace_id: str, span: StoredSpan, process: str, warnings: Sequence[str] | None) -> dict[str, Any]:
    rest = span.rest
    return {
        "traceID": trace_id,
        "spanID": span.id.hex(),
        "operationName": span.name,
        "references": _references(trace_id, span),
        "startTime": span.start // _US,
        "duration": span.duration // _US,
        "tags": _fields(_sorted(tags.of_span(rest, span.kind) + tags.of_scope(span.origin.scope))),
        "logs": [{"timestamp": event.time_unix_nano // _US, "fields": _fields(_event(event))} for event in rest.events],
        "processID": process,
        "warnings": warnings,
    }


def _references(trace_id: str, span: StoredSpan) -> list[dict[str, str]]:
    parent = [("CHILD_OF", trace_id, span.parent)] if span.parent else []
    links = [("FOLLOWS_FROM", hex_id(link.trace_id), link.span_id) for link in span.rest.links]
    return [{"refType": kind, "traceID": of, "spanID": span_id.hex()} for kind, of, span_id in (*parent, *links)]


def _event(event: Span.Event) -> list[tags.Tag]:
    """Give an event's fields, its name before all others."""
    fields = tags.of_event(event)
    named = 1 if event.name else 0
    return fields[:named] + _sorted(fields[named:])


def _sorted(of: Iterable[tags.Tag]) -> list[tags.Tag]:
    return sorted(of, key=lambda tag: tag[0])


def _fields(of: Iterable[tags.Tag]) -> list[dict[str, Any]]:
    return [{"key": key, "type": kind, "value": _value(value)} for key, kind, value in of]


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if value else None
    if type(value) is int and not -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
        return str(value)
    return value


# -- warnings


def _warnings(spans: Sequence[StoredSpan]) -> Mapping[bytes, list[str]]:
    """Say of each span what is odd about its times, in Jaeger's words: people search for them."""
    by_id = {span.id: span for span in spans}
    warnings: dict[bytes, list[str]] = {}
    for span in spans:
        if span.duration == 0:
            end, adjusted = _time(span.rest.end_time_unix_nano), _time(span.start + 1)
            text = "Negative duration detected, sanitizing end timestamp. Original end timestamp"
            warnings.setdefault(span.id, []).append(f"{text}: {end}, adjusted to: {adjusted}")
        if not span.parent:
            continue
        parent = by_id.get(span.parent)
        if parent is None:
            text = f"invalid parent span IDs={span.parent.hex()}; skipping clock skew adjustment"
            warnings.setdefault(span.id, []).append(text)
        elif (skew := _skew(span, parent)) != 0:
            text = f"clock skew adjustment disabled; not applying calculated delta of {units.format_duration(skew)}"
            warnings.setdefault(span.id, []).append(text)
    return warnings


def _skew(child: StoredSpan, parent: StoredSpan) -> int:
    """Say by how much a child's clock seems to be behind its parent's, in nanoseconds."""
    child_lasts, parent_lasts = max(1, child.duration), max(1, parent.duration)
    if child_lasts > parent_lasts:  # it went on when the parent had given up: only its start says something
        return max(0, parent.start - child.start)
    if parent.start <= child.start and child.start + child_lasts <= parent.start + parent_lasts:
        return 0
    return parent.start + (parent_lasts - child_lasts) // 2 - child.start


def _time(nanoseconds: int) -> str:
    """Write a time as Go does."""
    seconds, fraction = divmod(nanoseconds, _S)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{digits} +0000 UTC"
