"""The telemetry contract: what it declares (`load`), what was seen (`spans_of`), how the two differ (`check_spans`)."""

from observability.contract.check import (
    Difference,
    check_edges,
    check_lines,
    check_metrics,
    check_series,
    check_spans,
    check_trace,
    check_values,
)
from observability.contract.declared import (
    FILE,
    Contract,
    ContractError,
    Event,
    Group,
    Rule,
    Rules,
    Tree,
    load,
)
from observability.contract.seen import SeenLine, SeenMetric, SeenSpan, metrics_of, spans_of

__all__ = [
    "FILE",
    "Contract",
    "ContractError",
    "Difference",
    "Event",
    "Group",
    "Rule",
    "Rules",
    "SeenLine",
    "SeenMetric",
    "SeenSpan",
    "Tree",
    "check_edges",
    "check_lines",
    "check_metrics",
    "check_series",
    "check_spans",
    "check_trace",
    "check_values",
    "load",
    "metrics_of",
    "spans_of",
]
