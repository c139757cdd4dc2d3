"""Jaeger's and Loki's HTTP APIs, as far as a story needs them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from observability.story.asking import ask
from observability.story.errors import StoryError
from observability.story.spans import Trace, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading an answer of another form raises."""

_TRACES = 20
_LINES = 1000
_HEAD = frozenset(("timestamp", "level", "service", "event", "trace_id", "span_id", "parent_span_id", "trace_flags"))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One log line, taken apart."""

    time: int
    """In nanoseconds since 1970."""
    service: str
    level: str
    event: str
    span_id: str
    fields: dict[str, Any]
    """All else that it says."""
    trace_id: str = ""


def trace(jaeger: str, trace_id: str) -> Trace:
    """Ask Jaeger for a trace; one without spans when it has none of this id.

    Raises:
        StoryError: Jaeger cannot be asked.
    """
    data = _get("Jaeger", jaeger, f"/api/traces/{trace_id}", {})
    with understood("Jaeger"):
        return parse(data["data"][0]) if data and data["data"] else Trace(trace_id)


def traces_of_order(jaeger: str, order_id: int, since: float, until: float) -> list[Trace]:
    """Ask Jaeger for the traces about an order, the oldest first.

    Args:
        jaeger: The API's root.
        order_id: The order.
        since: Unix time in seconds.
        until: Unix time in seconds.

    Raises:
        StoryError: Jaeger cannot be asked.
    """
    wanted = {
        "service": "order-service",
        "tags": json.dumps({"shop.order.id": str(order_id)}),
        "start": str(int(since * 1e6)),
        "end": str(int(until * 1e6)),
        "limit": str(_TRACES),
    }
    data = _get("Jaeger", jaeger, "/api/traces", wanted)
    with understood("Jaeger"):
        return sorted(map(parse, data["data"] if data else ()), key=lambda found: found.start)


def lines_query(trace_id: str) -> str:
    """Write what Loki is asked for the log lines of a trace."""
    return f'{{service_namespace="shop"}} | trace_id="{trace_id}"'


def lines(loki: str, trace_id: str, since: float, until: float) -> list[Line]:
    """Ask Loki for the log lines of a trace, the oldest first.

    Args:
        loki: The API's root.
        trace_id: The trace.
        since: Unix time in seconds.
        until: Unix time in seconds.

    Raises:
        StoryError: Loki cannot be asked.
    """
    wanted = {
        "query": lines_query(trace_id),
        "start": str(int(since * 1e9)),
        "end": str(int(until * 1e9)),
        "limit": str(_LINES),
        "direction": "forward",
    }
    data = _get("Loki", loki, "/loki/api/v1/query_range", wanted)
    with understood("Loki"):
        return oldest_first(data["data"]["result"] if data else ())


def oldest_first(streams: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Take the lines of all streams apart, the oldest first."""
    found = [line_of(stream["stream"], *entry[:2]) for stream in streams for entry in stream["values"]]
    return sorted(found, key=lambda line: line.time)


@contextmanager
def understood(who: str) -> Iterator[None]:
    """Read an answer: one of another form than the API's is told like one that did not come.

    Raises:
        StoryError: The answer is of another form.
    """
    try:
        yield
    except NOT_UNDERSTOOD as error:
        raise StoryError(f"{who}'s answer has an unknown form ({type(error).__name__}: {error}).") from error


def line_of(labels: Mapping[str, str], time: str, text: str) -> Line:
    """Take a line apart, as Loki gives it."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        said = {"event": text}
    return Line(
        time=int(time),
        service=str(said.get("service") or labels.get("service_name", "")),
        level=str(said.get("level", "")),
        event=str(said.get("event", "")),
        trace_id=str(said.get("trace_id") or labels.get("trace_id", "")),
        span_id=str(said.get("span_id", "")),
        fields={name: value for name, value in said.items() if name not in _HEAD},
    )


def _get(who: str, root: str, path: str, fields: dict[str, str]) -> Any:
    """Ask for JSON; None where the answer is 404."""
    answer = ask(who, root + path, fields)
    if answer.status == HTTPStatus.NOT_FOUND:  # how Jaeger says that there is no such trace
        return None
    if answer.status == HTTPStatus.OK and (said := answer.json()) is not None:
        return said
    raise StoryError(f"{who}'s API at {root} answers {answer.status} to {path}: {answer.text(200)}")
