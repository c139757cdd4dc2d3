"""Writes docs/telemetry.md from the telemetry contract: `python docs/contract.py`, or `make docs`."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "telemetry.md"

sys.path.insert(0, str(ROOT))

from observability.contract import Contract, Event, Group, Rule, Rules, Tree, load

LEVELS = 5  # that there are of log lines

HEAD = """\
# The telemetry contract
This page lists every span, metric and log event by name; nothing else is emitted. Tests compare the running shop with
it in all modes and in both directions: what is listed is seen, and what is seen is listed
(`tests/telemetry/test_contract.py`, `tests/compose/test_telemetry.py`, `tests/kubernetes/test_telemetry.py`).

<!-- Written by `make docs` from observability/contract.yaml: change it there. -->

An attribute, label or field is always present, unless the list says "when". `$name` means one of a closed set of
values. The sets are at the end of this page; `$routes`, `$peers`, `$called_routes` and `$queries` are those of the
service itself.
"""


def page() -> str:
    """Return the page as it should be."""
    contract = load()
    file = contract.file
    lines = [HEAD]
    columns = ("service", "what it is", "routes", "calls and SQL statements")
    lines += ["## Services", *_table(columns, _services(contract))]
    lines += ["## What everything has"]
    lines += ["Of every span, in its resource:", "", *_rules(file.resource)]
    for name, origin in file.gateway_tracing.items():
        lines += ["", f"Of the gateway's span with `GATEWAY_TRACING={name}`: {origin.says.strip()}", ""]
        lines += [*_rules({**origin.resource, **origin.scope})]
    for name, rules in file.span_events.items():
        lines += ["", f"Of a span's event `{name}`:", "", *_rules(rules)]
    lines += ["", "Of every log line in Loki, as labels of its stream:", "", *_rules(file.stream_labels)]
    lines += ["", "as structured metadata:", "", *_rules(file.metadata)]
    lines += ["", "and in its JSON:", "", *_rules(file.line)]
    lines += ["", "Of every series in Prometheus:", "", *_rules(file.target_labels), ""]
    for group in file.groups:
        lines += _group(group)
    lines += ["## Traces", "Children are indented below their parents. A span that ends in `?` may be missing.", ""]
    for name, trace in file.traces.items():
        lines += [f"### {name}", trace.about, "```", *_tree(trace.tree), "```", ""]
    lines += ["## Closed sets", *(f"- `${name}`: {_codes(values)}" for name, values in file.values.items())]
    return "\n".join(lines) + "\n"


def _services(contract: Contract) -> Iterator[tuple[str, ...]]:
    for name, service in contract.file.services.items():
        routes = (f"`{' '.join(methods)} {route}`" for route, methods in service.routes.items())
        calls = [f"`{call.method} {call.route}` of {call.peer}" for call in service.calls]
        queries = [f"`{query.summary}`" for query in service.queries]
        yield f"`{name}`", service.about, "<br>".join(routes), "<br>".join(calls + queries)


def _group(group: Group) -> Iterator[str]:
    title, _, rest = group.about.partition(". ")
    yield f"## {title.rstrip('.')}"
    where = f", only {_in_modes(group.only_in)}" if group.only_in else ""
    yield f"{rest} From {_codes(group.services)}{where}.".strip()
    yield ""
    if group.spans:
        rows = (
            (f"`{span.name}`" + (f" for each {span.for_each}" if span.for_each else ""), span.kind,
             span.says + (f" Linked to {span.links}." if span.links else ""), _listed(span.attributes))
            for span in group.spans
        )  # fmt: skip
        yield from _table(("span", "kind", "says", "attributes"), rows)
    if group.metrics:
        metrics = (
            (f"`{metric.name}`",
             metric.type + ", exemplars" * metric.exemplars + ", pushed" * metric.pushed,
             metric.says, _listed(metric.labels))
            for metric in group.metrics
        )  # fmt: skip
        yield from _table(("metric", "type", "says", "labels"), metrics)
    if group.events:
        events = (
            (f"`{event.name}`", ", ".join(event.level) if len(event.level) < LEVELS else "any",
             event.says + _traced(event), _listed(event.fields))
            for event in group.events
        )  # fmt: skip
        yield from _table(("log event", "level", "says", "fields"), events)
    for line in group.plain_lines:
        yield f"Lines that are no JSON, like `{line.pattern}`: {line.says}.\n"


def _traced(event: Event) -> str:
    return {"always": "", "sometimes": " Not always part of a trace.", "never": " Not part of a trace."}[event.traced]


def _listed(rules: Rules) -> str:
    return "<br>".join(f"`{name}`{_described(rule)}" for name, rule in rules.items())


def _rules(rules: Rules) -> Iterator[str]:
    for name, rule in rules.items():
        yield f"- `{name}`{_described(rule)}"


def _described(rule: Rule) -> str:
    parts: list[str] = [] if rule.type == "string" else [rule.type]
    if rule.values is not None:
        parts.append(", ".join(f"`{value}`" if value != "" else "empty" for value in rule.values))
    if rule.nullable:
        parts.append("or null" if parts else "may be null")
    said = f": {' '.join(parts)}" if parts else ""
    said += f" ({rule.says})" if rule.says else ""
    said += f", only {_in_modes(rule.only_in)}" if rule.only_in else ""
    return said + (f", when {rule.when}" if rule.when else "")


def _in_modes(modes: Sequence[str]) -> str:
    return f"in {' and '.join({'local': 'local mode'}.get(mode, mode.title()) for mode in modes)}"


def _tree(tree: Tree, depth: int = 0) -> Iterator[str]:
    for text, below in tree.items():
        yield "  " * depth + text
        yield from _tree(below or {}, depth + 1)


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""


def _codes(values: Sequence[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
