"""Spans as Jaeger's API gives them, the tree that they make, and what is missing in it."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GATEWAY = "nginx"
"""The service whose span is the first one, though a client may have named one before it."""

DEEPEST = 16
"""The levels of a tree that are drawn; of a deeper one its number is told, so that there is room for its name."""

MAX_ORDER = 2**31 - 1
"""The largest id that an order can have."""

_ORDER = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, kw_only=True)
class Span:
    """One span; times in microseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    service: str
    name: str
    kind: str
    """In lower case: server, client, internal, producer or consumer."""
    start: int
    duration: int
    tags: Mapping[str, Any]
    links: Sequence[tuple[str, str]] = ()
    """Trace and span ids of other spans that this one has to do with."""
    events: Sequence[Mapping[str, Any]] = ()
    """What happened meanwhile, as Jaeger gives it: `timestamp` in microseconds, and `fields`."""
    resource: Mapping[str, Any] = field(default_factory=dict)
    """What is said of the process that made it."""

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""
        return self.tags.get("error") in {True, "true"} or self.tags.get("otel.status_code") == "ERROR"


@dataclass(frozen=True)
class Place:
    """Where a span is in the tree."""

    depth: int = 0
    last: tuple[bool, ...] = ()
    """For each level down to its own, as far as they are drawn, whether it is, or hangs below, the last child."""

    def below(self, *, last: bool) -> Place:
        """Give the place of a child."""
        return Place(self.depth + 1, (*(self.last if self.depth < DEEPEST else ()), last))


@dataclass(frozen=True)
class Trace:
    """All spans of a trace that are there, by their start."""

    trace_id: str
    spans: Sequence[Span] = ()

    @cached_property
    def start(self) -> int:
        """When the first span began, in microseconds since 1970; 0 without spans."""
        return min((span.start for span in self.spans), default=0)

    @cached_property
    def duration(self) -> int:
        """How long it took from the first begin to the last end, in microseconds."""
        return max((span.start + max(span.duration, 0) for span in self.spans), default=0) - self.start

    def tree(self) -> Iterator[tuple[Span, Place]]:
        """Walk the spans as a tree, parents first, each once, whatever they say of their parents.

        Children of a span id that several spans share hang below the first one. A circle is opened at one of its spans.
        """
        known = {span.span_id: span for span in reversed(self.spans)}
        children: dict[str, list[Span]] = defaultdict(list)
        roots = []
        for span in self.spans:
            if span.parent_id in known and span.parent_id != span.span_id:
                children[span.parent_id].append(span)
            else:
                roots.append(span)
        seen: set[int] = set()  # by identity: equal spans are two all the same

        def below(root: Span) -> Iterator[tuple[Span, Place]]:
            ahead = [(root, Place())]
            while ahead:
                span, place = ahead.pop()
                seen.add(id(span))
                yield span, place
                siblings = [child for child in children.pop(span.span_id, ()) if id(child) not in seen]
                ahead += [(child, place.below(last=child is siblings[-1])) for child in reversed(siblings)]

        for root in roots:
            yield from below(root)
        for span in self.spans:  # what no root leads to is in a circle, or below one
            if id(span) not in seen:
                above: set[int] = set()
                top = span
                while id(top) not in above:
                    above.add(id(top))
                    top = known[top.parent_id]
                yield from below(top)

    def order_id(self) -> int | None:
        """Give the order that this trace is about, if it says so."""
        ids = (str(span.tags["shop.order.id"]) for span in self.spans if "shop.order.id" in span.tags)
        return next((int(found) for found in ids if _ORDER.fullmatch(found) and int(found) <= MAX_ORDER), None)

    def missing(self) -> list[str]:
        """Say in plain words which spans must exist and are not there."""
        if not self.spans:
            return [f"no span of trace {self.trace_id}"]
        known = {span.span_id for span in self.spans}
        parents = {span.parent_id for span in self.spans}
        found = [
            f"the span above {span.service}'s {span.name}"
            for span in self.spans
            if span.parent_id and span.parent_id not in known and span.service != GATEWAY
        ]
        found += [
            f"{span.tags['peer.service']}'s span below {span.service}'s {span.name}"
            for span in self.spans
            if "peer.service" in span.tags and not span.failed and span.span_id not in parents
        ]
        return found


def parse(trace: Mapping[str, Any]) -> Trace:
    """Read one trace of a Jaeger answer's `data`."""
    spans = []
    processes = {
        name: (process.get("serviceName", "unknown"), {tag["key"]: tag["value"] for tag in process.get("tags") or ()})
        for name, process in trace["processes"].items()
    }
    for span in trace["spans"]:
        service, resource = processes.get(span.get("processID"), ("unknown", {}))
        tags = {tag["key"]: tag["value"] for tag in span.get("tags") or ()}
        references = [(each["refType"], each["traceID"], each["spanID"]) for each in span.get("references") or ()]
        parents = (above for kind, trace_id, above in references if (kind, trace_id) == ("CHILD_OF", span["traceID"]))
        spans.append(
            Span(
                trace_id=span["traceID"],
                span_id=span["spanID"],
                parent_id=next(parents, ""),
                service=service,
                name=span["operationName"],
                kind=str(tags.get("span.kind", "internal")),
                start=span["startTime"],
                duration=span["duration"],
                tags=tags,
                links=[(trace_id, linked) for kind, trace_id, linked in references if kind == "FOLLOWS_FROM"],
                events=span.get("logs") or (),
                resource=resource,
            )
        )
    return Trace(trace["traceID"], sorted(spans, key=lambda span: span.start))
