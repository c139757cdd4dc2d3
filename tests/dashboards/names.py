"""What a query may name: the contract's metrics and labels, recorded series, and what Prometheus itself adds.

`Names.faults(expr)` follows labels from the series outwards, through functions and aggregations, so that `by (route)`
is a fault where the series below have no `route`, or have lost it.
"""

import re
from dataclasses import dataclass, field

import promql_parser as promql
import yaml

from observability.embedded.logql import ast as logql
from observability.embedded.logql.parse import parse as parse_logql
from tests.fixtures.stack import PROJECT

RULES = PROJECT / "observability" / "prometheus" / "rules"
TOOLS = {"collector": "compose", "jaeger": "compose", "loki": "compose", "alertmanager": "compose", "prometheus": None}
"""Jobs of programs that are not ours: their metrics are checked by asking for them. And the mode that has them."""

OF_EACH_TARGET = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
ALERTS = {"ALERTS", "ALERTS_FOR_STATE"}


@dataclass
class Series:
    """What is known of the series of a name."""

    labels: dict  # name -> closed set of values, or None
    modes: set = field(default_factory=lambda: {"local", "compose"})
    services: set = field(default_factory=set)


class Names:
    """All names there are.

    Args:
        contract: The telemetry contract.
    """

    def __init__(self, contract):
        self._contract = contract
        self._target = {name: rule.values for name, rule in contract.target_labels.items()}
        self._samples = {}
        for (service, _), metric in contract.metrics.items():
            for name, extra in self._sample_names(metric):
                self._samples.setdefault(name, {})[service] = (metric, extra)
        self._recorded = {}
        self._alerts = {}
        for file in sorted(RULES.glob("*.yml")):
            for group in yaml.safe_load(file.read_text())["groups"]:
                for rule in group["rules"]:
                    kind, key = (self._recorded, "record") if "record" in rule else (self._alerts, "alert")
                    kind.setdefault(rule[key], []).append(rule)
        self._reached = {}

    @staticmethod
    def _sample_names(metric):
        if metric.type != "histogram":
            return [(metric.name, {})]
        return [(f"{metric.name}_bucket", {"le": None}), (f"{metric.name}_count", {}), (f"{metric.name}_sum", {})]

    def series(self, name, matchers=()):
        """What there is of this name, None if nothing is."""
        jobs = [value for label, value, equal in matchers if label == "job" and equal]
        if jobs and jobs[0] in TOOLS:
            only = TOOLS[jobs[0]]
            return Series({}, {only} if only else {"local", "compose"})
        if name in OF_EACH_TARGET:
            return Series(self._target, services=set(jobs or self._target["job"]))
        if name in ALERTS:
            severities = {rule["labels"]["severity"] for rules in self._alerts.values() for rule in rules}
            labels = {
                "alertname": list(self._alerts),
                "severity": list(severities),
                "alertstate": ["pending", "firing"],
            }
            return Series({**self._target, **labels})
        if name in self._recorded:
            return self._recorded_series(name)
        found = {job: one for job, one in self._samples.get(name, {}).items() if not jobs or job in jobs}
        if not found:
            return None
        labels = dict(self._target)
        for metric, extra in found.values():
            for label, rule in {**metric.labels}.items():
                earlier = labels.get(label, [])
                labels[label] = None if rule.values is None or earlier is None else [*earlier, *rule.values]
            labels |= extra
        modes = {mode for metric, _ in found.values() for mode in metric.only_in or ("local", "compose")}
        return Series(labels, modes, set(found))

    def _recorded_series(self, name):
        labels, modes = {}, set()
        for rule in self._recorded[name]:
            if name not in self._reached:
                self._reached[name] = set(self.labels(promql.parse(rule["expr"]), []))
            labels |= dict.fromkeys(self._reached[name])
            for label, value in rule.get("labels", {}).items():
                labels[label] = [*(labels.get(label) or []), value]
            modes |= {"local", "compose"}
        if "job" in labels:
            labels["job"] = self._target["job"]
        return Series(labels, modes, set(self._target["job"]))

    # PromQL

    def faults(self, expr):
        """What is wrong with the names in a PromQL query; none if nothing is."""
        found = []
        self.labels(promql.parse(expr), found)
        return found

    def modes(self, expr):
        """In which modes there is anything that the query asks for, and, if it chooses services, for which."""
        modes, services = {"local", "compose"}, None
        for name, matchers in selectors(promql.parse(expr)):
            series = self.series(name, matchers)
            if series is None:
                return set(), set()
            modes &= series.modes
            chosen = {value for label, value, equal in matchers if label == "job" and equal}
            if chosen:
                services = (series.services & chosen) | (chosen & set(TOOLS))
        return modes, services

    def labels(self, node, found):  # noqa: PLR0911  # a case for each kind of node
        """The labels of what a part of a query gives; notes what is wrong on the way."""
        match node:
            case promql.VectorSelector():
                return self._selected(node, found)
            case promql.MatrixSelector():
                return self._selected(node.vector_selector, found)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.labels(node.expr, found)
            case promql.Call():
                return self._called(node, found)
            case promql.AggregateExpr():
                return self._aggregated(node, found)
            case promql.BinaryExpr():
                return self._combined(node, found)
        return set()  # numbers and texts

    def _aggregated(self, node, found):
        inner = self.labels(node.expr, found)
        if node.modifier is None:
            return set()
        named = set(node.modifier.labels)
        found += [f"{label} is not there to be grouped by" for label in sorted(named) if label not in inner]
        return named if node.modifier.type == promql.AggModifierType.By else inner - named

    def _combined(self, node, found):
        left, right = self.labels(node.lhs, found), self.labels(node.rhs, found)
        matching = node.modifier.matching if node.modifier else None
        named = sorted(matching.labels) if matching else []
        found += [f"{label} is not there to be matched" for label in named if label not in left | right]
        return left | right

    def _called(self, node, found):
        labels = set()
        for argument in node.args:
            labels = labels | self.labels(argument, found)
        if node.func.name == "histogram_quantile":
            if "le" not in labels:
                found.append("le is not there for the quantile")
            labels = labels - {"le"}
        if node.func.name == "label_replace":
            labels = labels | {node.args[1].val}
        return labels

    def _selected(self, node, found):
        matchers = _matchers(node)
        series = self.series(node.name, matchers)
        if series is None:
            found.append(f"there is no metric {node.name}")
            return _Anything()
        if not series.labels:
            return _Anything()
        for matcher in node.matchers.matchers:
            if matcher.name not in series.labels:
                found.append(f"{node.name} has no label {matcher.name}")
            elif values := series.labels[matcher.name]:
                found += self._never(node.name, matcher, values)
        return set(series.labels)

    @staticmethod
    def _never(name, matcher, values):
        texts = [str(value) for value in values] + [""]
        if "Re" not in str(matcher.op):
            return [] if matcher.value in texts else [f"{name} has no {matcher.name} {matcher.value!r}"]
        alternatives = [matcher.value] if "(" in matcher.value else matcher.value.split("|")
        return [
            f"{name} has no {matcher.name} like {one!r}"
            for one in alternatives
            if not any(re.fullmatch(one, text) for text in texts)
        ]

    # LogQL

    def logql_faults(self, expr):
        """What is wrong with the names in a LogQL query."""
        found = []
        for query in _log_queries(parse_logql(expr)):
            found += self._log_query(query)
        for node in _nodes(parse_logql(expr)):
            grouping = getattr(node, "grouping", None)
            if grouping:
                known = {*self._contract.stream_labels, *self._contract.metadata, *self._fields(None)}
                found += [f"{label} is not there to be grouped by" for label in grouping.labels if label not in known]
        return found

    def _fields(self, services):
        return {
            name
            for (service, _), event in self._contract.events.items()
            if services is None or service in services
            for name in event.fields
        } | set(self._contract.line)

    def _log_query(self, query):
        found, services = [], set()
        for matcher in query.matchers:
            rule = self._contract.stream_labels.get(matcher.name)
            if rule is None:
                found.append(f"streams have no label {matcher.name}")
            elif matcher.name == "service_name":
                services |= {value for value in rule.values if re.fullmatch(matcher.value, str(value))}
                if not services:
                    found.append(f"no stream has {matcher.name} {matcher.value!r}")
        parsed = any(isinstance(stage, logql.Json) for stage in query.stages)
        known = set(self._contract.stream_labels) | set(self._contract.metadata)
        if parsed:
            known |= self._fields(services or None) | {"__error__", "__line__"}
        events = {name for service, name in self._contract.events if not services or service in services}
        for name, value in _named(query.stages):
            if name not in known:
                found.append(f"lines have no {name}{'' if parsed else ' before | json'}")
            elif name == "event" and value is not None and value not in events:
                found.append(f"there is no event {value}")
            elif value is not None and name not in {"event", *self._contract.metadata}:
                found += self._no_such_value(services, name, value)
        return found

    def _no_such_value(self, services, name, value):
        rules = [
            event.fields[name]
            for (service, _), event in self._contract.events.items()
            if service in services and name in event.fields
        ]
        allowed = any(rule.values is None or value in map(str, rule.values) for rule in rules)
        return [] if allowed or not rules else [f"no line has {name} {value!r}"]


class _Anything(set):
    """The labels of a metric that is not ours, or not there: any."""

    def __contains__(self, _):
        return True

    def _itself(self, _):
        return self

    __or__ = __ror__ = __sub__ = _itself


def _matchers(node):
    return [(one.name, one.value, str(one.op).endswith(".Equal")) for one in node.matchers.matchers]


def selectors(node):
    """The (name, matchers) of all series that a query selects."""
    found = []

    def visit(one):
        if isinstance(one, promql.VectorSelector):
            found.append((one.name, _matchers(one)))

    promql.walk(node, visit)
    return found


def _nodes(node):
    yield node
    for name in ("query", "inner", "left", "right"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, str):
            yield from _nodes(below)


def _log_queries(node):
    return [one for one in _nodes(node) if isinstance(one, logql.LogQuery)]


def _named(stages):
    """The labels that a pipeline asks for, each with the value it has to have, if that is said."""
    for stage in stages:
        match stage:
            case logql.LabelFilter():
                yield from _conditions(stage.condition)
            case logql.Unwrap():
                yield stage.name, None
            case logql.LineFormat():
                yield from ((part[0], None) for part in stage.template.parts if isinstance(part, tuple))


def _conditions(condition):
    match condition:
        case logql.Both() | logql.Either():
            yield from _conditions(condition.left)
            yield from _conditions(condition.right)
        case logql.Matcher():
            yield condition.name, condition.value if condition.operator in {"=", "!="} else None
        case logql.Compare():
            yield condition.name, None
