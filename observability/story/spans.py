"""Spans as Jaeger's API gives them, the tree that they make, and what is missing in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GATEWAY = "nginx"
"""The service whose span is the first one, though a client may have named one before it."""


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

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""
        return self.tags.get("error") in {True, "true"} or self.tags.get("otel.status_code") == "ERROR"


@dataclass(frozen=True)
class Trace:
    """All spans of a trace that are there, by their start."""

    trace_id: str
    spans: Sequence[Span] = ()

    @property
    def start(self) -> int:
        """When the first span began, in microseconds since 1970; 0 without spans."""
        return min((span.start for span in self.spans), default=0)

    @property
    def duration(self) -> int:
        """How long it took from the first begin to the last end, in microseconds."""
        return max((span.start + span.duration for span in self.spans), default=0) - self.start

    def tree(self) -> Iterator[tuple[Span, tuple[bool, ...]]]:
        """Walk the spans as a tree, parents first.

        Yields:
            Each span, with its place: for each level down to its own whether it is, or hangs below, the last child.
        """
        known = {span.span_id for span in self.spans}
        children: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            children[span.parent_id if span.parent_id in known else ""].append(span)

        def below(parent_id: str, place: tuple[bool, ...]) -> Iterator[tuple[Span, tuple[bool, ...]]]:
            for span in (siblings := children.get(parent_id, [])):
                here = (*place, span is siblings[-1])
                yield span, here
                yield from below(span.span_id, here)

        for root in children[""]:
            yield root, ()
            yield from below(root.span_id, ())

    def order_id(self) -> int | None:
        """Give the order that this trace is about, if it says so."""
        ids = (span.tags["shop.order.id"] for span in self.spans if "shop.order.id" in span.tags)
        return next((int(found) for found in ids), None)

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
    for span in trace["spans"]:
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        parents = (
            reference["spanID"]
            for reference in span.get("references") or ()
            if reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]
        )
        spans.append(
            Span(
                trace_id=span["traceID"],
                span_id=span["spanID"],
                parent_id=next(parents, ""),
                service=trace["processes"][span["processID"]]["serviceName"],
                name=span["operationName"],
                kind=tags.get("span.kind", "internal"),
                start=span["startTime"],
                duration=span["duration"],
                tags=tags,
            )
        )
    return Trace(trace["traceID"], sorted(spans, key=lambda span: span.start))
