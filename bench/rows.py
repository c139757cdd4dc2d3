"""What is compared: configurations of the stack, each by the environment that makes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

_OFF = {
    "TELEMETRY": "off",
    "GATEWAY_TRACING": "off",
    "BENCH_ACCESS_LOG": "off",
    "LOG_LEVEL": "critical",
    "OTEL_METRICS_EXPORTER": "none",
}
_LOGS = {"TELEMETRY": "off", "GATEWAY_TRACING": "off", "OTEL_METRICS_EXPORTER": "none"}
_METRICS = {"TELEMETRY": "off", "GATEWAY_TRACING": "off", "BENCH_GATEWAY_TELEMETRY": "on"}
_TRACES = {"TELEMETRY": "off", "BENCH_GATEWAY_TELEMETRY": "on", "BENCH_SINK_PORT": "free"}
_EVERY_TRACE = {"GATEWAY_SAMPLE_PERCENT": "100"}
_STOCK = {"BENCH_STOCK": "on"}

SWITCHES = frozenset(
    {*_OFF, *_LOGS, *_METRICS, *_TRACES, "GATEWAY_SAMPLE_PERCENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "BENCH_ORDER_PORTS"}
    | {"BENCH_TUTORIAL", "BENCH_STOCK", "BENCH_BACKENDS", "ACCESS_LOG"}
)
"""Variables that a row decides about: what the caller's environment says of them does not count."""


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        name: Its short name, by which it is asked for.
        text: What it is, for the table.
        environment: The variables that make it.
        scraped: Whether the measurement asks for `/metrics` as Prometheus would: there is none.
        replicas: Processes of order-service.
        project: The folder whose code runs.
    """

    name: str
    text: str
    environment: Mapping[str, str] = field(default_factory=dict)
    scraped: bool = False
    replicas: int = 1
    project: Path = PROJECT


ROWS = {
    row.name: row
    for row in (
        Row("off", "no telemetry", _OFF),
        Row("logs", "logs only", _LOGS),
        Row("metrics", "+ metrics", _METRICS, scraped=True),
        # nginx has no 0 %; this is the least that it takes.
        Row("traces-0", "+ traces, 0 % sampled", _TRACES | {"GATEWAY_SAMPLE_PERCENT": "0.01"}, scraped=True),
        Row("traces-10", "+ traces, 10 % sampled", _TRACES | {"GATEWAY_SAMPLE_PERCENT": "10"}, scraped=True),
        Row("default", "the shop as it is: logs, metrics, every trace", _TRACES | _EVERY_TRACE, scraped=True),
        Row("stock", "zero-code instrumentation instead of ours", _TRACES | _EVERY_TRACE | _STOCK, scraped=True),
        Row("full", "like `default`, with the embedded backend and Prometheus", _EVERY_TRACE),
        Row("stock-full", "like `stock`, with the embedded backend and Prometheus", _EVERY_TRACE | _STOCK),
        Row("tutorial", "the tutorial's code, no telemetry", _OFF | {"BENCH_TUTORIAL": "on"}),
    )
}
HEADLINE = ("off", "default", "stock")
"""What telemetry costs, in three rows."""

STATEMENTS = "statements"
"""The row that is no stack: an order's SQL statements alone, by pgbench in the database of the first row's stack."""

STATEMENTS_TEXT = "the order's SQL statements alone (pgbench)"


def parse(text: str) -> Row:
    """Read what the command line calls a configuration: `NAME[@PROJECT][,VARIABLE=VALUE...]`.

    Raises:
        BenchError: There is no such configuration, or no such project.
    """
    head, *changes = text.split(",")
    name, _, project = head.partition("@")
    if name not in ROWS:
        raise BenchError(f"There is no configuration {name!r}: take one of {', '.join(ROWS)}.")
    row = ROWS[name]
    if wrong := [change for change in changes if "=" not in change]:
        raise BenchError(f"{wrong[0]!r} is no VARIABLE=VALUE.")
    environment = {**row.environment, **dict(change.split("=", 1) for change in changes)}
    folder = Path(project).expanduser().resolve() if project else row.project
    if not (folder / "local" / "stack.py").is_file():
        raise BenchError(f"{folder} is no copy of this project.")
    if text == name:
        return row
    named = ",".join([f"{name}@{folder.name}" if project else name, *changes])
    what = f"{row.text} ({named.removeprefix(name).lstrip(',')})"
    return dataclasses.replace(row, name=named, text=what, environment=environment, project=folder)


def with_replicas(row: Row, count: int) -> Row:
    """Give the same configuration with so many processes of order-service."""
    return dataclasses.replace(row, name=f"{row.name}-x{count}", text=f"{count} of order-service", replicas=count)
