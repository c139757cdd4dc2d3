"""What the embedded backend tells of itself, on `/metrics` of the OTLP port."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from observability.embedded.database import Database
from observability.embedded.spans import SpanStore
from observability.embedded.tail import Tail

SIGNALS = ("traces", "logs")
REQUEST_REASONS = ("encoding", "malformed", "media_type", "overloaded", "too_large")
SPAN_REASONS = ("bad_id", "bad_time", "malformed")
LOG_REASONS = ("labels", "malformed", "metadata", "too_long", "too_new", "too_old")


class BackendMetrics:
    """The registry, and the counters of what came in. All are there at 0 from the start."""

    def __init__(self, database: Database, spans: SpanStore, tail: Tail) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each is pure cost
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_Figures(database, spans, tail))
        self.spans_received = Counter("embedded_spans_received_total", "Spans accepted.", registry=self.registry)
        self.spans_rejected = Counter(
            "embedded_spans_rejected_total",
            "Spans refused one by one, the rest of their request was accepted.",
            ["reason"],
            registry=self.registry,
        )
        self.log_records_received = Counter(
            "embedded_log_records_received_total", "Log records accepted by OTLP and as pushes.", registry=self.registry
        )
        self.log_records_rejected = Counter(
            "embedded_log_records_rejected_total",
            "Log records refused one by one, the rest of their request was accepted.",
            ["reason"],
            registry=self.registry,
        )
        self.refused = Counter(
            "embedded_refused_total",
            "Requests with telemetry, refused whole.",
            ["signal", "reason"],
            registry=self.registry,
        )
        for reason in SPAN_REASONS:
            self.spans_rejected.labels(reason)
        for reason in LOG_REASONS:
            self.log_records_rejected.labels(reason)
        for signal in SIGNALS:
            for reason in REQUEST_REASONS:
                self.refused.labels(signal, reason)


class _Figures(Collector):
    """Reads what the threads count, when it is asked for."""

    def __init__(self, database: Database, spans: SpanStore, tail: Tail) -> None:
        self._database = database
        self._spans = spans
        self._tail = tail

    def collect(self) -> Iterator[Metric]:
        figures, counts, tail = self._database.figures, self._spans.counts, self._tail.figures
        for name, text, count in (
            ("embedded_spans_stored", "Spans written to the database.", counts.stored),
            (
                "embedded_spans_duplicate",
                "Spans that were there already: an export that was tried again.",
                counts.duplicates,
            ),
            ("embedded_log_lines_read", "Lines read from the files of `LOG_FILES`.", tail.lines),
            ("embedded_log_lines_cut", "Lines of those that were too long, and cut.", tail.cut),
            ("embedded_log_lines_lost", "Lines that could not be written to those: a full disk.", self._tail.lost),
            ("embedded_log_lines_not_json", "Lines of those that are no JSON.", tail.not_json),
            ("embedded_database_commits", "Transactions of the writer.", figures.groups),
            ("embedded_database_deleted", "Spans and log lines deleted for their age or for room.", figures.deleted),
            ("embedded_database_failed_writes", "Accepted requests that could not be written.", figures.failed_writes),
        ):
            yield CounterMetricFamily(name, text, value=count)
        for name, text, level in (
            ("embedded_log_files", "Files that are followed.", tail.files),
            ("embedded_queue_length", "Accepted requests that wait for the writer.", figures.queued_writes),
            ("embedded_queue_bytes", "Their size.", figures.queued_bytes),
            ("embedded_queue_capacity_bytes", "How much of them may wait.", figures.queue_capacity_bytes),
            ("embedded_database_bytes", "Size of the database file.", figures.file_bytes),
            ("embedded_database_used_bytes", "How much of it is in use.", figures.used_bytes),
        ):
            yield GaugeMetricFamily(name, text, value=level)
