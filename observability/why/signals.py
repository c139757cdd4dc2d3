"""The queries to Prometheus: scarce resources, parts that are down, changes, and the state of the telemetry itself.

A signal's values now are compared with those before, by a limit, by an increase, or by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from observability.why.statistics import median, quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATABASE = "order-db"
"""The name of the shop's database. It has no telemetry of its own; order-service exports its statistics."""
_NEVER = float("inf")


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One query, and which of its values are bad."""

    name: str
    says: str
    """The sentence in an answer, with {service}, {now} and {before}."""
    query: str
    kind: str = "saturation"
    limit: float = _NEVER
    """A value above this is bad, unless it was above it before."""
    rise: float = _NEVER
    """A value is bad if it is this many times the highest value before,"""
    least: float = 0.0
    """and exceeds it by this much."""
    unit: str = ""
    service: str = ""
    """The service that it is about, if it is not the label `job`."""
    alone: bool = False
    """Whether it is a cause by itself; otherwise it is only a reason for a cause that was found in requests."""


@dataclass(frozen=True)
class Finding:
    """A signal that is bad now."""

    signal: Signal
    labels: Mapping[str, str]
    now: float
    before: float

    @property
    def service(self) -> str:
        """The service that it is about."""
        return self.signal.service or self.labels.get("job", "")

    @property
    def says(self) -> str:
        """The sentence with its values."""
        unit = self.signal.unit
        return self.signal.says.format(
            service=self.service, now=_amount(self.now, unit), before=_amount(self.before, unit)
        )


def _by_job(inner: str, how: str = "sum") -> str:
    return f"{how} by (job) ({inner})"


def _lost(*names: str) -> str:
    return " or ".join(_by_job(f"rate({name}[1m])") for name in names)


SIGNALS = (
    Signal(
        name="pool",
        says="{now} of the database connections of {service} are in use; before {before}.",
        query=_by_job(
            'db_client_connection_count{db_client_connection_state="used"}'
            " / ignoring (db_client_connection_state) db_client_connection_max",
            "max",
        ),
        limit=0.8,
        unit="%",
    ),
    Signal(
        name="pool waits",
        says="In {service} one statement in twenty waits {now} for a database connection; before {before}.",
        query="histogram_quantile(0.95, sum by (job, le) (rate(db_client_connection_wait_time_seconds_bucket[1m])))",
        limit=0.1,
        rise=3,
        unit="s",
    ),
    Signal(
        name="pool timeouts",
        says="In {service} {now} requests a second get no database connection in time; before {before}.",
        query=_by_job("rate(db_client_connection_timeouts_total[1m])"),
        limit=0.02,
    ),
    Signal(
        name="queue full",
        says="{service} refuses {now} requests a second, because too many wait; before {before}.",
        query=_by_job("rate(http_server_requests_rejected_total[1m])"),
        limit=0.02,
    ),
    Signal(
        name="requests at once",
        says="{service} works on {now} requests at once; before on {before} at most.",
        query=_by_job("http_server_active_requests"),
        limit=8,
        rise=2.5,
    ),
    Signal(
        name="processor",
        says="{service} uses {now} of a processor, which is all that one Python process can; before {before}.",
        query=_by_job("rate(process_cpu_seconds_total[1m])", "max"),
        limit=0.7,
        rise=1.8,
        unit="%",
    ),
    Signal(
        name="memory",
        says="{service} holds {now} of memory; before {before}.",
        query=_by_job("process_resident_memory_bytes", "max"),
        rise=1.5,
        least=96e6,
        unit="bytes",
        alone=True,
    ),
    Signal(
        name="descriptors",
        says="{service} has {now} files and connections open; before {before}.",
        query=_by_job("process_open_fds", "max"),
        rise=2,
        least=200,
        alone=True,
    ),
    Signal(
        name="garbage",
        says="The garbage collector of {service} makes {now} full runs a second; before {before}.",
        query=_by_job('rate(python_gc_collections_total{generation="2"}[1m])'),
        limit=0.3,
        rise=4,
    ),
    Signal(
        name="retries",
        says="{service} tries {now} calls a second again; before {before}.",
        query=_by_job("rate(http_client_retries_total[1m])"),
        limit=0.1,
        rise=4,
    ),
    Signal(
        name="connections",
        says="{now} of the connections that PostgreSQL allows are in use; before {before}.",
        query="max(pg_stat_database_numbackends) / max(pg_settings_max_connections)",
        limit=0.8,
        unit="%",
        service=DATABASE,
    ),
    Signal(
        name="locks",
        says="{now} statements wait for a lock in PostgreSQL; before {before}.",
        query="max(pg_locks_waiting)",
        limit=0.9,
        rise=2,
        service=DATABASE,
    ),
    Signal(
        name="rows read",
        says="PostgreSQL reads {now} rows a second by scans; before {before}.",
        query="max(rate(pg_stat_database_tup_returned[1m]))",
        rise=5,
        least=20_000,
        service=DATABASE,
    ),
    Signal(
        name="pending",
        says="The oldest order has waited {now} to be paid; before {before}.",
        query=_by_job("orders_pending_oldest_age_seconds", "max"),
        limit=30,
        rise=2,
        unit="s",
    ),
    Signal(
        name="spans lost",
        says="{service} loses {now} spans a second; before {before}. Traces have gaps.",
        query=_by_job('rate(otel_sdk_processor_span_processed_total{error_type!=""}[1m])')
        + " + "
        + _by_job('rate(otel_sdk_exporter_span_exported_total{error_type!=""}[1m])')
        + " or "
        + _lost(
            "otelcol_exporter_send_failed_spans_total",
            "otelcol_exporter_enqueue_failed_spans_total",
            "gateway_span_batches_lost_total",
        ),
        kind="telemetry",
        limit=0.1,
        alone=True,
    ),
    Signal(
        name="spans waiting",
        says="{now} of the queue of spans of {service} is full; before {before}.",
        query="max by (job) (otel_sdk_processor_span_queue_size / otel_sdk_processor_span_queue_capacity)"
        " or max by (job) (otelcol_exporter_queue_size / otelcol_exporter_queue_capacity)",
        kind="telemetry",
        limit=0.5,
        unit="%",
        alone=True,
    ),
    Signal(
        name="lines lost",
        says="{service} loses {now} log lines a second, parts of them, or what they mean; before {before}.",
        query=_lost(
            "embedded_log_lines_cut_total",
            "embedded_log_lines_lost_total",
            "embedded_database_failed_writes_total",
            'gateway_log_lines_total{outcome="malformed"}',
            "otelcol_exporter_send_failed_log_records_total",
            "otelcol_exporter_enqueue_failed_log_records_total",
        ),
        kind="telemetry",
        limit=0.05,
        alone=True,
    ),
    Signal(
        name="series",
        says="{service} has {now} series in its metrics; before {before}.",
        query=_by_job("scrape_samples_scraped", "max"),
        kind="telemetry",
        rise=2,
        least=2000,  # after a start, series are created one by one
        alone=True,
    ),
    Signal(
        name="scrape",
        says="Prometheus needs {now} to read the metrics of {service}; before {before}.",
        query=_by_job("scrape_duration_seconds", "max"),
        kind="telemetry",
        limit=1.5,
        rise=4,
        unit="s",
    ),
)

UP = "max by (job) (up)"
GATEWAY_UP = "max by (job) (gateway_up)"
STARTED = "max by (job, instance) (process_start_time_seconds)"


def judge(signal: Signal, labels: Mapping[str, str], now: Sequence[float], before: Sequence[float]) -> Finding | None:
    """Return a finding if a signal is bad now. Half of the values now have to be bad, since one may be chance."""
    if not now:
        return None
    value = max(median(now[-3:]), median(now))
    usual = quantile(before, 0.9)
    risen = value > usual * signal.rise and value > usual + signal.least if signal.rise < _NEVER else True
    above = value > signal.limit and usual <= signal.limit if signal.limit < _NEVER else True
    if not (risen and above) or (signal.rise < _NEVER and signal.limit == _NEVER and not before):
        return None
    return Finding(signal, labels, value, usual)


def _amount(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.0%}"
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"  # noqa: PLR2004
