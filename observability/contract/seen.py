"""What a system emitted, as the public APIs show it: spans by Jaeger's, lines by Loki's, metrics as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_JAEGERS_OWN = {"span.kind", "error", "otel.status_code"}


@dataclass(frozen=True)
class SeenSpanEvent:
    """An event of a span, as Jaeger's API shows it."""

    name: str
    attributes: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class SeenSpan:
    """A span, as Jaeger's API shows it."""

    service: str
    kind: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: dict[str, Any] = field(hash=False)
    resource: dict[str, Any] = field(hash=False)
    scope: dict[str, Any] = field(hash=False)
    links: tuple[str, ...] = ()
    events: tuple[SeenSpanEvent, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What the contract knows it by."""
        return self.service, self.kind, self.name


@dataclass(frozen=True)
class SeenLine:
    """A log line, as Loki's API shows it: the labels of its stream, its structured metadata, the text."""

    labels: dict[str, str]
    metadata: dict[str, str]
    text: str


@dataclass(frozen=True)
class SeenMetric:
    """A metric of one service, with the labels of all its series, and the traces that its exemplars lead to."""

    service: str
    name: str
    type: str
    series: tuple[tuple[tuple[str, str], ...], ...]
    exemplars: tuple[str, ...] = ()


def spans_of(trace: Mapping[str, Any]) -> Iterator[SeenSpan]:
    """Read the spans of one trace from the JSON of Jaeger's API."""
    for span in trace["spans"]:
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        process = trace["processes"][span["processID"]]
        parents = [ref for ref in span["references"] if ref["refType"] == "CHILD_OF"]
        links = [ref["traceID"] for ref in span["references"] if ref["refType"] == "FOLLOWS_FROM"]
        yield SeenSpan(
            service=process["serviceName"],
            kind=tags.get("span.kind", "none"),
            name=span["operationName"],
            trace_id=span["traceID"],
            span_id=span["spanID"],
            parent_id=parents[0]["spanID"] if parents else None,
            attributes={
                key: value
                for key, value in tags.items()
                if key not in _JAEGERS_OWN and not key.startswith("otel.scope.")
            },
            resource={
                "service.name": process["serviceName"],
                **{tag["key"]: tag["value"] for tag in process.get("tags", [])},
            },
            scope={key: value for key, value in tags.items() if key.startswith("otel.scope.")},
            links=tuple(links),
            events=tuple(_event_of(log["fields"]) for log in span.get("logs") or []),
        )


def _event_of(fields: Iterable[Mapping[str, Any]]) -> SeenSpanEvent:
    attributes = {one["key"]: one["value"] for one in fields}
    return SeenSpanEvent(str(attributes.pop("event", "")), attributes)


def metrics_of(service: str, exposition: str) -> Iterator[SeenMetric]:
    """Read the metrics of one service from a text in OpenMetrics' format."""
    for family in text_string_to_metric_families(exposition):  # type: ignore[no-untyped-call]
        if not family.samples:
            continue  # a heading, until there is something to say
        name = family.name + {"counter": "_total"}.get(family.type, "")
        series = {
            tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
            for sample in family.samples
        }
        exemplars = {sample.exemplar.labels["trace_id"] for sample in family.samples if sample.exemplar is not None}
        yield SeenMetric(service, name, family.type, tuple(sorted(series)), tuple(exemplars))
