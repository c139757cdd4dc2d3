"""Who watches the watchers: is what the other dashboards show complete, and fresh?

Where traces and logs are kept differs: in local mode it is the embedded backend, in Docker Compose the Collector and
what stands behind it. Such panels ask for both, and show the one that is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board
from observability.grafana.panels import graph
from observability.grafana.queries import RATE, promql

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_COLLECTOR = 'job="collector"'


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "telemetry",
        "Can the other dashboards be believed: is anything lost, late, or about to be?",
        {
            "From the services": [
                graph(
                    "Spans lost at the source",
                    "Does a service fail to get rid of its spans? Then traces have holes.",
                    promql(
                        f'sum by (job) (rate(otel_sdk_exporter_span_exported_total{{error_type!=""}}[{RATE}]))',
                        "{{job}}: not taken",
                    ),
                    promql(
                        "sum by (job)"
                        f' (rate(otel_sdk_processor_span_processed_total{{error_type="queue_full"}}[{RATE}]))',
                        "{{job}}: queue full",
                    ),
                    unit="suffix:spans/s",
                ),
                graph(
                    "Queues at the source",
                    "How full are the services' queues? At 100 % the oldest spans are dropped.",
                    promql(
                        "max by (job) (otel_sdk_processor_span_queue_size / otel_sdk_processor_span_queue_capacity)",
                        "{{job}}",
                    ),
                    unit="percentunit",
                    steps=(0.5, 0.9),
                ),
            ],
            "On the way": [
                graph(
                    "Spans sent and accepted",
                    "Does what is sent arrive? The lines should lie on each other.",
                    promql(f'sum(rate(otel_sdk_exporter_span_exported_total{{error_type=""}}[{RATE}]))', "sent"),
                    promql(f"sum(rate(embedded_spans_received_total[{RATE}]))", "accepted by the embedded backend"),
                    promql(
                        f"sum(rate(otelcol_receiver_accepted_spans_total{{{_COLLECTOR}}}[{RATE}]))",
                        "accepted by the Collector",
                    ),
                    unit="suffix:spans/s",
                ),
                graph(
                    "Log lines accepted",
                    "Do log lines arrive? Without traffic there are none.",
                    promql(f"sum(rate(embedded_log_lines_read_total[{RATE}]))", "read by the embedded backend"),
                    promql(
                        f"sum(rate(otelcol_receiver_accepted_log_records_total{{{_COLLECTOR}}}[{RATE}]))",
                        "accepted by the Collector",
                    ),
                    unit="suffix:lines/s",
                ),
                graph(
                    "Queues on the way",
                    "How full are they? One that only fills: a backend does not take it; at 100 % nothing is taken.",
                    promql("embedded_queue_bytes / embedded_queue_capacity_bytes", "embedded backend"),
                    promql(
                        f"max by (exporter) (otelcol_exporter_queue_size{{{_COLLECTOR}}}"
                        f" / otelcol_exporter_queue_capacity{{{_COLLECTOR}}})",
                        "Collector: {{exporter}}",
                    ),
                    unit="percentunit",
                    steps=(0.5, 0.9),
                ),
                graph(
                    "Refused on the way",
                    "What was sent and is not kept, and why?",
                    promql(
                        f"sum by (signal, reason) (rate(embedded_refused_total[{RATE}]))",
                        "embedded backend: {{signal}}, {{reason}}",
                    ),
                    promql(
                        f"sum by (reason) (rate(embedded_spans_rejected_total[{RATE}]))",
                        "embedded backend: a span, {{reason}}",
                    ),
                    promql(
                        f"sum by (receiver) (rate(otelcol_receiver_refused_spans_total{{{_COLLECTOR}}}[{RATE}]))",
                        "Collector: spans, {{receiver}}",
                    ),
                    promql(
                        f"sum by (receiver) (rate(otelcol_receiver_refused_log_records_total{{{_COLLECTOR}}}[{RATE}]))",
                        "Collector: lines, {{receiver}}",
                    ),
                    unit="suffix:refused/s",
                ),
                graph(
                    "Delay of the gateway's log",
                    "How old is a line of the gateway's log when its metric and its span are made of it? A gap: nothing"
                    " was read; if the services have requests meanwhile, the log is not followed.",
                    promql(
                        "max(gateway_log_delay_seconds)"
                        f' and on () sum(rate(gateway_log_lines_total{{outcome="request"}}[{RATE}])) > 0',
                        "newest line",
                    ),
                    unit="s",
                    steps=(5, 30),
                    none="Nothing is read",
                ),
                graph(
                    "Time of a scrape",
                    "Does Prometheus get its answers in time? After 4 s it gives up, and the part counts as down.",
                    promql("max by (job) (scrape_duration_seconds)", "{{job}}"),
                    unit="s",
                    steps=(1, 4),
                ),
            ],
            "Room": [
                graph(
                    "Series in Prometheus",
                    "Does somebody put something unbounded into a label? Then this grows without end.",
                    promql('prometheus_tsdb_head_series{job="prometheus"}', "series"),
                    unit="short",
                ),
                graph(
                    "Kept",
                    "Will it fit? The oldest is deleted when the room is used up.",
                    promql("embedded_database_used_bytes", "embedded backend: traces and logs"),
                    promql(
                        'prometheus_tsdb_storage_blocks_bytes{job="prometheus"}', "Prometheus: all but the last hours"
                    ),
                    unit="bytes",
                ),
            ],
        },
    )
