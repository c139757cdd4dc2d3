"""Compares what a system emitted with the contract, in both directions, and asks nobody.

Each check gives a `Difference`: what is declared and was not seen, and what was seen and is not declared.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from observability.contract.declared import Contract, Metric, Rule, Rules, Tree
    from observability.contract.seen import SeenLine, SeenMetric, SeenSpan

_IDS = ("trace_id", "span_id")
_TYPES = {"string": (str,), "int": (int,), "double": (float, int), "bool": (bool,), "strings": (list,)}


@dataclass
class Difference:
    """Between contract and system."""

    missing: set[str] = field(default_factory=set)
    undeclared: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.missing or self.undeclared)

    def __ior__(self, other: Difference) -> Self:
        """Take another one in."""
        self.missing |= other.missing
        self.undeclared |= other.undeclared
        return self

    def __str__(self) -> str:
        """List it."""
        parts = [("declared and not seen", self.missing), ("seen and not declared", self.undeclared)]
        return "\n".join(f"{title}:\n  " + "\n  ".join(sorted(found)) for title, found in parts if found) or "none"


def _violation(rule: Rule, value: Any) -> str | None:
    """Say what is wrong with a value, None if nothing is."""
    if value is None:
        return None if rule.nullable else "null"
    if rule.values is not None:
        known = [one for one in rule.values if one == value and isinstance(one, bool) == isinstance(value, bool)]
        return None if known else repr(value)
    if not isinstance(value, _TYPES[rule.type]) or (isinstance(value, bool) and rule.type != "bool"):
        return f"{value!r}, which is no {rule.type}"
    if rule.pattern is not None and not re.fullmatch(rule.pattern, str(value)):
        return repr(value)
    return None


def check_values(where: str, rules: Rules, values: Mapping[str, Any], mode: str) -> Difference:
    """Compare named values with the rules that a mode has for them."""
    found = Difference()
    known = {name: rule for name, rule in rules.items() if rule.only_in is None or mode in rule.only_in}
    for name, rule in known.items():
        if rule.required and name not in values:
            found.missing.add(f"{where}: {name}")
    for name, value in values.items():
        if name not in known:
            found.undeclared.add(f"{where}: {name}")
        elif wrong := _violation(known[name], value):
            found.undeclared.add(f"{where}: {name} is {wrong}")
    return found


def check_spans(contract: Contract, spans: Sequence[SeenSpan], mode: str) -> Difference:
    """Compare names, kinds, attributes, events, links and resources of spans."""
    total = Difference()
    for span in spans:
        where = " ".join(span.key)
        declared = contract.spans.get(span.key)
        if declared is None:
            total.undeclared.add(where)
            continue
        total |= check_values(where, declared.attributes, span.attributes, mode)
        origin = contract.origin_of(span.service, span.scope.get("otel.scope.name")) or contract
        total |= check_values(f"{span.service}'s resource", origin.resource, span.resource, mode)
        total |= check_values(f"{span.service}'s scope", origin.scope, span.scope, mode)
        if bool(span.links) != bool(declared.links):
            (total.missing if declared.links else total.undeclared).add(f"{where}: a link")
        for event in span.events:
            if event.name in contract.span_events:
                rules = contract.span_events[event.name]
                total |= check_values(f"{where}: event {event.name}", rules, event.attributes, mode)
            else:
                total.undeclared.add(f"{where}: event {event.name}")
    seen = {span.key for span in spans}
    names = {name for span in spans for name in span.attributes}
    happened = {event.name for span in spans for event in span.events}
    events = contract.span_events.items()
    expected = {name for name, rules in events if any(rule.tested_by is None for rule in rules.values())}
    total.missing |= {f"event {name}, in any span" for name in expected - happened}
    for key, declared in contract.spans.items():
        if declared.expected(mode) and key not in seen:
            total.missing.add(" ".join(key))
        if declared.only_in is None or mode in declared.only_in:
            total.missing |= {f"{name}, in any span" for name in _occasional(declared.attributes) - names}
    return total


def _occasional(rules: Rules) -> set[str]:
    """Name what is not always there, but has to be seen at times."""
    return {name for name, rule in rules.items() if not rule.required and rule.tested_by is None}


def check_edges(contract: Contract, spans: Sequence[SeenSpan]) -> Difference:
    """Compare whose child each span is. The parent of a gateway's span, if it has one, is the client's."""
    total = Difference()
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    declared = {(edge.parent, edge.child) for edge in contract.edges}
    roots = {contract.node(text) for trace in contract.file.traces.values() for text in trace.tree}
    seen = set()
    for span in spans:
        if span.parent_id is None:
            if span.kind != "server" and span.key not in roots:
                total.undeclared.add(f"{' '.join(span.key)} is a root")
            continue
        parent = by_id.get((span.trace_id, span.parent_id))
        if parent is None:
            if span.service != "nginx":
                total.undeclared.add(f"{' '.join(span.key)} has a parent that is not there")
            continue
        seen.add((parent.key, span.key))
        if (parent.key, span.key) not in declared and not _same_request(parent, span):
            total.undeclared.add(f"{' '.join(span.key)} <- {' '.join(parent.key)}")
    for edge in contract.edges:
        if not edge.optional and (edge.parent, edge.child) not in seen:
            total.missing.add(str(edge))
    return total


def _same_request(parent: SeenSpan, child: SeenSpan) -> bool:
    """Say whether the child is the service's side of what the gateway got: each route is such a pair."""
    method = child.name.partition(" ")[0]
    return (
        (parent.service, parent.kind, child.kind) == ("nginx", "server", "server")
        and parent.name.partition(" ")[0] == method
        and child.name in {method, parent.name}
    )


def check_trace(contract: Contract, name: str, spans: Sequence[SeenSpan]) -> list[str]:
    """Say in what the spans of one trace are not the contract's tree of this name: each span once, and no other."""
    below: dict[str | None, list[SeenSpan]] = defaultdict(list)  # by their parent, None where it is not here
    ids = {span.span_id for span in spans}
    for span in spans:
        below[span.parent_id if span.parent_id in ids else None].append(span)

    def compare(tree: Tree, parent: str | None, where: str) -> Iterator[str]:
        wanted = {contract.node(text): text for text in tree}
        for key, count in Counter(span.key for span in below[parent]).items():
            if key not in wanted:
                yield f"{' '.join(key)} under {where} is not declared"
            elif count > 1:
                yield f"{' '.join(key)} under {where} is there {count} times"
        present = {span.key: span for span in below[parent]}
        for key, text in wanted.items():
            if key in present:
                yield from compare(tree[text] or {}, present[key].span_id, " ".join(key))
            elif not text.endswith(" ?"):
                yield f"{' '.join(key)} under {where} is missing"

    return list(compare(contract.file.traces[name].tree, None, "no parent"))


def check_lines(contract: Contract, lines: Iterable[SeenLine], mode: str) -> Difference:
    """Compare log lines: labels, metadata, events, fields."""
    total = Difference()
    seen = set()
    for line in lines:
        service = line.labels.get("service_name", "?")
        total |= check_values(f"{service}'s stream labels", contract.stream_labels, line.labels, mode)
        if any(re.fullmatch(plain.pattern, line.text) for plain in contract.plain_lines(service)):
            continue
        try:
            fields = json.loads(line.text)
        except ValueError:
            total.undeclared.add(f"{service} wrote a line that is no JSON: {line.text[:80]!r}")
            continue
        seen.add((service, fields.get("event")))
        total |= _check_event(contract, service, fields, mode)
        total |= _check_metadata(contract, f"{service} {fields.get('event')}", line.metadata, fields, mode)
    for key, declared in contract.events.items():
        if declared.expected(mode) and key not in seen:
            total.missing.add(" ".join(key))
    return total


def _check_event(contract: Contract, service: str, fields: Mapping[str, Any], mode: str) -> Difference:
    name = str(fields.get("event"))
    where = f"{service} {name}"
    declared = contract.events.get((service, name))
    if declared is None:
        return Difference(undeclared={where})
    ids = {key: contract.metadata[key] for key in _IDS}
    if declared.traced == "always":
        ids = {key: rule.model_copy(update={"when": None}) for key, rule in ids.items()}
    if declared.traced == "never":
        ids = {}
    total = check_values(where, {**contract.line, **ids, **declared.fields}, fields, mode)
    if fields.get("level") not in declared.level:
        total.undeclared.add(f"{where}: level {fields.get('level')}")
    return total


def _check_metadata(
    contract: Contract, where: str, metadata: Mapping[str, str], fields: Mapping[str, Any], mode: str
) -> Difference:
    total = check_values(f"{where}, metadata", contract.metadata, metadata, mode)
    for key in (*_IDS, "level"):
        if metadata.get(key) != (fields.get(key) or None):
            total.undeclared.add(f"{where}: {key} is not the same in metadata and line")
    return total


def check_metrics(contract: Contract, metrics: Iterable[SeenMetric], mode: str) -> Difference:
    """Compare metrics: names, types, labels and their values, exemplars."""
    total = Difference()
    seen = set()
    for metric in metrics:
        where = f"{metric.service} {metric.name}"
        declared = contract.metrics.get((metric.service, metric.name))
        if declared is None:
            total.undeclared.add(where)
            continue
        seen.add((metric.service, metric.name))
        if metric.type != declared.type:
            total.undeclared.add(f"{where} is a {metric.type}")
        for labels in metric.series:
            total |= check_values(where, declared.labels, dict(labels), mode)
        if declared.exemplars and metric.series and not metric.exemplars and declared.expected(mode):
            total.missing.add(f"{where}: exemplars")
        if metric.exemplars and not declared.exemplars:
            total.undeclared.add(f"{where}: exemplars")
    for key, declared in contract.metrics.items():
        if declared.expected(mode) and not declared.pushed and key not in seen:
            total.missing.add(" ".join(key))
    return total


def check_series(contract: Contract, series: Iterable[Mapping[str, str]], mode: str) -> Difference:
    """Compare series in Prometheus: the metric's labels and the target's. Tools have metrics of their own."""
    total = Difference()
    seen = set()
    names = {(job, name): metric for (job, one), metric in contract.metrics.items() for name in _samples(one, metric)}
    jobs = {job for job, _ in contract.metrics}
    for labels in series:
        job, name = labels["job"], labels["__name__"]
        if job not in jobs:
            continue
        where = f"{job} {name} in Prometheus"
        declared = names.get((job, name))
        if declared is None:
            total.undeclared.add(where)
            continue
        seen.add((job, declared.name))
        own = {key: value for key, value in labels.items() if key not in {"__name__", "le"}}
        # What is empty has no label in Prometheus.
        rules = {
            key: rule.model_copy(update={"when": "not empty"}) if "" in (rule.values or []) else rule
            for key, rule in {**declared.labels, **contract.target_labels}.items()
        }
        total |= check_values(where, rules, own, mode)
        if declared.pushed == ("instance" in own):
            total.undeclared.add(f"{where} was {'scraped' if declared.pushed else 'pushed'}")
    for key, declared in contract.metrics.items():
        if declared.expected(mode) and key not in seen:
            total.missing.add(f"{' '.join(key)} in Prometheus")
    return total


def _samples(name: str, metric: Metric) -> list[str]:
    return [f"{name}_{end}" for end in ("bucket", "count", "sum")] if metric.type == "histogram" else [name]
