"""Reads `observability/contract.yaml`: what the shop tells about itself, as objects, with templates written out.

    contract = load()
    contract.spans["order-service", "client", "INSERT orders"].attributes["db.namespace"].values

Dashboards, documents and tests take names from here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FILE = Path(__file__).parent.with_suffix(".yaml")

_TEMPLATE = {"name", "attributes", "for_each", "other_methods"}

Value = str | bool | int | float
Kind = Literal["server", "client", "internal"]
Mode = Literal["local", "compose", "kubernetes"]


class ContractError(ValueError):
    """The contract contradicts itself. The message says where."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Rule(_Entry):
    """What a value may be: an attribute's, a label's or a log field's."""

    type: Literal["string", "int", "double", "bool", "strings"] = "string"
    values: list[Value] | None = None
    """The closed set, if there is one; `$name` stands for a set of the section `values` or of the service."""
    pattern: str | None = None
    """What all of the text has to match, where the set is open."""
    when: str | None = None
    """When it is there; without this it always is."""
    nullable: bool = False
    tested_by: str | None = None
    """The test that provokes what no request can, as `tests/x.py::test_y`."""
    only_in: list[Mode] | None = None
    """The modes that have it, if not all have."""
    says: str = ""

    @property
    def required(self) -> bool:
        """Whether it is always there."""
        return self.when is None


Rules = dict[str, Rule]


class Seen(_Entry):
    """How it is known that something declared is really emitted."""

    may: str | None = None
    """Why it need not be seen: nothing depends on it."""
    tested_by: str | None = None
    """The test that provokes what no request can, as `tests/x.py::test_y`."""

    only_in: list[Mode] | None = None
    """The modes that have it: its group's."""

    def expected(self, mode: str) -> bool:
        """Whether the shop has to show it in this mode when all its journeys are walked."""
        return self.may is None and self.tested_by is None and (self.only_in is None or mode in self.only_in)


class DeclaredSpan(Seen):
    """A span of one service."""

    name: str
    kind: Kind
    attributes: Rules = {}
    says: str = ""
    links: str = ""
    """What its link leads to, if it has one."""


class SpanTemplate(DeclaredSpan):
    """A span, or one for each route, method, call or query of the service."""

    for_each: Literal["route", "method", "call", "query"] | None = None
    other_methods: list[str] = []
    """Of a span for each route: methods beside those of the route that may show up too."""


class Metric(Seen):
    """A metric."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    unit: Literal["", "seconds", "bytes"] = ""
    labels: Rules = {}
    exemplars: bool = False
    """Whether its points lead to traces."""
    pushed: bool = False
    """Whether it comes to Prometheus by itself, and is on nobody's `/metrics`."""
    says: str


class Event(Seen):
    """A log event."""

    name: str
    level: list[Literal["debug", "info", "warning", "error", "critical"]]
    traced: Literal["always", "sometimes", "never"] = "always"
    """Whether a line has trace_id and span_id."""
    fields: Rules = {}
    says: str


class PlainLine(_Entry):
    """A log line that is no JSON, because the program that writes it cannot do otherwise."""

    pattern: str
    says: str


class Call(_Entry):
    """A call that a service makes to another."""

    peer: str
    method: str
    route: str
    traced: bool = True
    """False for what is done beside the requests, again and again: it makes no span."""


class DeclaredQuery(_Entry):
    """A database statement, by its summary `<operation> <collection>`."""

    summary: str
    traced: bool = True
    """False for what only looks from the background: it makes no span."""


class DeclaredService(_Entry):
    """A part that emits telemetry."""

    about: str
    routes: dict[str, list[str]] = {}
    """Route template to methods, as its server spans, metrics and log lines name them."""
    untraced_routes: list[str] = []
    """Those of the routes that are asked for by work that no trace shows: their spans need not be there."""
    calls: list[Call] = []
    queries: list[DeclaredQuery] = []

    @property
    def traced_queries(self) -> list[str]:
        """The summaries of the statements that have spans."""
        return [query.summary for query in self.queries if query.traced]


class Group(_Entry):
    """What some services emit alike."""

    services: list[str]
    about: str
    only_in: list[Mode] | None = None
    """The modes that have it, if not all have."""
    spans: list[SpanTemplate] = []
    metrics: list[Metric] = []
    events: list[Event] = []
    plain_lines: list[PlainLine] = []


Tree = dict[str, Any]


class DeclaredTrace(_Entry):
    """How the spans of a trace hang together: `service name` of the parent, below it those of its children.

    A child that ends in ` ?` need not be there, and need not be seen under this parent.
    """

    about: str
    tree: Tree


class Edge(_Entry):
    """A parent and its child, each as (service, kind, name)."""

    parent: tuple[str, str, str]
    child: tuple[str, str, str]
    optional: bool = False

    def __str__(self) -> str:
        """Give it in words, the child first."""
        return f"{' '.join(self.child)} <- {' '.join(self.parent)}"


class Origin(_Entry):
    """Where a service's spans come from, if it is not where all others do."""

    says: str
    resource: Rules = {}
    """As all spans have it, if this is left out."""
    scope: Rules


class _File(_Entry):
    values: dict[str, list[Value]]
    resource: Rules
    scope: Rules = {}
    span_events: dict[str, Rules] = {}
    gateway_tracing: dict[str, Origin] = {}
    stream_labels: Rules
    metadata: Rules
    line: Rules
    target_labels: Rules
    services: dict[str, DeclaredService]
    groups: list[Group]
    traces: dict[str, DeclaredTrace]

    @model_validator(mode="after")
    def _known_services(self) -> Self:
        for group in self.groups:
            if unknown := set(group.services) - set(self.services):
                raise ValueError(f"no such service: {', '.join(sorted(unknown))}")
        return self


_Variant = tuple[dict[str, str], dict[str, str], dict[str, str]]
"""One of those that a template stands for: what goes into the name, the attributes it sets, what else it changes."""


class Contract:
    """The contract with everything written out.

    Attributes:
        file: The contract as it is written.
        spans: By (service, kind, name).
        metrics: By (service, name).
        events: By (service, name).
        resource, scope: Of every span.
        span_events: What a span may have as events, and their attributes.
        origins: Of the gateway's span, by GATEWAY_TRACING.
        stream_labels, metadata, line: Of every log line.
        target_labels: Of every series.
        edges: All edges of all traces.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.file = _File.model_validate(document)
        self.spans: dict[tuple[str, str, str], DeclaredSpan] = {}
        self.metrics: dict[tuple[str, str], Metric] = {}
        self.events: dict[tuple[str, str], Event] = {}
        self._sets: dict[str, dict[str, list[Any]]] = {
            service: {
                **self.file.values,
                "services": list(self.file.services),
                "routes": list(described.routes),
                "peers": sorted({call.peer for call in described.calls}),
                "called_routes": sorted({call.route for call in described.calls}),
                "queries": [query.summary for query in described.queries],
            }
            for service, described in self.file.services.items()
        }
        for group in self.file.groups:
            for service in group.services:
                self._add(service, group)
        everywhere: dict[str, list[Any]] = {**self.file.values, "services": list(self.file.services)}
        self.resource, self.scope, self.stream_labels, self.metadata, self.line, self.target_labels = (
            _resolved(rules, everywhere)
            for rules in (
                self.file.resource,
                self.file.scope,
                self.file.stream_labels,
                self.file.metadata,
                self.file.line,
                self.file.target_labels,
            )
        )
        self.span_events = {name: _resolved(rules, everywhere) for name, rules in self.file.span_events.items()}
        self.origins = {
            name: origin.model_copy(update={"resource": origin.resource or self.resource})
            for name, origin in self.file.gateway_tracing.items()
        }
        self.edges = [edge for name in self.file.traces for edge in self.edges_of(name)]

    def _add(self, service: str, group: Group) -> None:
        mode = {"only_in": group.only_in}
        for template in group.spans:
            for span in self._spans(service, template):
                key = (service, span.kind, span.name)
                earlier = self.spans.get(key)
                if earlier is not None:  # a span that two groups declare has the attributes of both
                    attributes = {**earlier.attributes, **span.attributes}
                    update = span.model_dump(include=span.model_fields_set - {"attributes"})
                    self.spans[key] = earlier.model_copy(update={**update, "attributes": attributes, **mode})
                else:
                    self.spans[key] = span.model_copy(update=mode)
        for metric in group.metrics:
            _once(self.metrics, service, metric.name)
            labels = _resolved(metric.labels, self._sets[service])
            self.metrics[service, metric.name] = metric.model_copy(update={"labels": labels, **mode})
        for event in group.events:
            _once(self.events, service, event.name)
            fields = _resolved(event.fields, self._sets[service])
            self.events[service, event.name] = event.model_copy(update={"fields": fields, **mode})

    def _spans(self, service: str, template: SpanTemplate) -> Iterator[DeclaredSpan]:
        attributes = _resolved(template.attributes, self._sets[service])
        plain = template.model_dump(include=template.model_fields_set - _TEMPLATE)
        for names, fixed, more in self._variants(service, template):
            rules = {
                key: rule.model_copy(update={"values": [fixed[key]]}) if key in fixed else rule
                for key, rule in attributes.items()
            }
            yield DeclaredSpan(**{**plain, **more}, name=template.name.format(**names), attributes=rules)

    def _variants(self, service: str, template: SpanTemplate) -> Iterator[_Variant]:
        described = self.file.services[service]
        match template.for_each:
            case None:
                yield {}, {}, {}
            case "method":
                for method in self._sets[service]["methods"]:
                    yield {"method": _in_a_name(method)}, {"http.request.method": method}, {}
            case "route":
                yield from _by_route(described, _members(template.other_methods, self._sets[service]))
            case "call":
                for call in filter(lambda call: call.traced, described.calls):
                    fixed = {"http.request.method": call.method, "url.template": call.route, "peer.service": call.peer}
                    yield {"method": call.method, "route": call.route}, fixed, {}
            case "query":
                for summary in described.traced_queries:
                    operation, _, collection = summary.partition(" ")
                    fixed = {"db.operation.name": operation, "db.collection.name": collection}
                    yield {"summary": summary}, {"db.query.summary": summary, **fixed}, {}

    def plain_lines(self, service: str) -> list[PlainLine]:
        """Give what a service may write that is no JSON."""
        return [line for group in self.file.groups if service in group.services for line in group.plain_lines]

    def origin_of(self, service: str, scope_name: str | None) -> Origin | None:
        """Find what made a span of the gateway, by its scope; None for all other spans."""
        if service != "nginx":
            return None
        named = (one for one in self.origins.values() if scope_name in (one.scope["otel.scope.name"].values or []))
        return next(named, None)

    def edges_of(self, trace: str) -> list[Edge]:
        """Give the edges of a trace of the section `traces`."""
        return list(self._edges(self.file.traces[trace].tree, None))

    def _edges(self, tree: Tree, parent: tuple[str, str, str] | None) -> Iterator[Edge]:
        for text, below in tree.items():
            child = self.node(text)
            if parent is not None:
                yield Edge(parent=parent, child=child, optional=text.endswith(" ?"))
            yield from self._edges(below or {}, child)

    def node(self, text: str) -> tuple[str, str, str]:
        """Find the span that a tree calls `service name`, with or without the ` ?` at its end."""
        service, _, name = text.removesuffix(" ?").partition(" ")
        found = [key for key in self.spans if (key[0], key[2]) == (service, name)]
        if len(found) != 1:
            raise ContractError(f"a trace has {len(found)} declared spans where it says: {text}")
        return found[0]


def _by_route(service: DeclaredService, others: list[str]) -> Iterator[_Variant]:
    for route, methods in service.routes.items():
        for method in dict.fromkeys([*methods, *others]):
            more = {} if method in methods else {"may": "the route is not meant for this method"}
            if route in service.untraced_routes:
                more = {"may": "those who ask for it do so beside the requests, and have no trace made"}
            fixed = {"http.request.method": method, "http.route": route}
            yield {"method": _in_a_name(method), "route": route}, fixed, more


def _in_a_name(method: str) -> str:
    return "HTTP" if method == "_OTHER" else method  # as the semantic conventions have it


def _resolved(rules: Rules, sets: Mapping[str, list[Any]]) -> Rules:
    return {
        name: rule if rule.values is None else rule.model_copy(update={"values": _members(rule.values, sets)})
        for name, rule in rules.items()
    }


def _members(values: Sequence[Any], sets: Mapping[str, list[Any]]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not (isinstance(value, str) and value.startswith("$")):
            found.append(value)
        elif value[1:] in sets:
            found += sets[value[1:]]
        else:
            raise ContractError(f"there is no set {value}")
    return found


def _once(declared: Mapping[tuple[str, str], object], service: str, name: str) -> None:
    if (service, name) in declared:
        raise ContractError(f"declared twice: {service} {name}")


def load(path: Path = FILE) -> Contract:
    """Read the contract.

    Raises:
        ContractError: It contradicts itself.
        ValidationError: It is not of the form that the classes above describe.
    """
    return Contract(yaml.safe_load(path.read_text(encoding="utf-8")))
