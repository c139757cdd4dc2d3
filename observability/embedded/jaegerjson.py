"""Traces in the form of Jaeger's JSON, and with the warnings that Jaeger finds in them."""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability.embedded import tags, units
from observability.embedded.spans import MAX_SPANS, MAX_TRACE, StoredSpan, StoredTrace, signed

_US = 1_000
_S = 1_000_000_000
_ADDRESSES = frozenset({"ip", "peer.ipv4"})
_SAFE_INTEGER = 2**53 - 1  # above it, JavaScript's numbers lose digits, so Jaeger writes text


def trace_json(trace: StoredTrace) -> dict[str, Any]:
    """Give a trace as Jaeger does."""
    trace_id = hex_id(trace.id)
    shown = _with_own_ids(trace.spans)
    warnings = _warnings(shown)
    names: dict[tuple[str, bytes], str] = {}  # of processes in this answer
    processes = {}
    spans = []
    for number, span in enumerate(shown):
        origin = span.origin
        key = (origin.service, origin.resource.SerializeToString(deterministic=True))
        if key not in names:
            names[key] = f"p{len(names) + 1}"
            processes[names[key]] = {
                "serviceName": origin.service,
                "tags": _fields(_sorted(tags.of_resource(origin.resource))),
            }
        spans.append(_span(trace_id, span, names[key], warnings.get(number)))
    cut = [f"the trace has more than {MAX_SPANS} spans or {MAX_TRACE >> 20} MiB, and is cut"] if trace.is_cut else None
    return {"traceID": trace_id, "spans": spans, "processes": processes, "warnings": cut}


def _with_own_ids(spans: Sequence[StoredSpan]) -> Sequence[StoredSpan]:
    """Give a server's span an id of its own where it shares the client's, as Zipkin's senders do.

    As in Jaeger: the client's span becomes its parent, and what was below the shared id is below the server's.
    """
    shared = {span.id for span in spans if span.kind == Span.SPAN_KIND_CLIENT}
    shared &= {span.id for span in spans if span.kind == Span.SPAN_KIND_SERVER}
    if not shared:
        return spans
    used = {span.id for span in spans}
    free = (own for number in count(1) if (own := number.to_bytes(8)) not in used)
    below: dict[bytes, bytes] = {}
    renamed = []
    for span in spans:
        if span.kind == Span.SPAN_KIND_SERVER and span.id in shared:
            below[span.id] = own = next(free)
            renamed.append(replace(span, id=own, parent=span.id))
        else:
            renamed.append(span)
    return [
        replace(span, parent=below[span.parent]) if below.get(span.parent, span.id) != span.id else span
        for span in renamed
    ]


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
    return [{"key": key, "type": kind, "value": _value(value)} for key, kind, value in map(_readable, of)]


def _readable(tag: tags.Tag) -> tags.Tag:
    """Write an address that is a number as Jaeger does: 127.0.0.1."""
    key, kind, value = tag
    if key in _ADDRESSES and kind in {"int64", "float64"} and math.isfinite(value):
        return key, "string", str(IPv4Address(int(value) % 2**32))
    return tag


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if value else None
    if type(value) is int and not -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
        return str(value)
    return value


# -- warnings


def _warnings(spans: Sequence[StoredSpan]) -> Mapping[int, list[str]]:
    """Say of each span, by its number, what is odd about it, in Jaeger's words: people search for them."""
    by_id: dict[bytes, StoredSpan] = {}
    for span in spans:
        by_id.setdefault(span.id, span)
    warnings: dict[int, list[str]] = {}
    for number, span in enumerate(spans):
        if text := [*_negative(span), *_out_of_place(span, by_id)]:
            warnings[number] = text
    return warnings


def _negative(span: StoredSpan) -> Iterator[str]:
    if span.duration == 0:
        end, adjusted = _time(signed(span.rest.end_time_unix_nano)), _time(span.start + 1)
        text = "Negative duration detected, sanitizing end timestamp. Original end timestamp"
        yield f"{text}: {end}, adjusted to: {adjusted}"


def _out_of_place(span: StoredSpan, by_id: Mapping[bytes, StoredSpan]) -> Iterator[str]:
    if by_id[span.id] is not span:
        yield "duplicate span IDs; skipping clock skew adjustment"
        return
    if not span.parent:
        return
    parent = by_id.get(span.parent)
    if parent is None:
        yield f"invalid parent span IDs={span.parent.hex()}; skipping clock skew adjustment"
    elif (skew := _skew(span, parent)) != 0:
        yield f"clock skew adjustment disabled; not applying calculated delta of {units.format_duration(skew)}"


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
