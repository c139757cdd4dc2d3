"""The first page: is anything wrong, and where?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board
from observability.grafana.panels import BAD, GOOD, bars, graph, numbers, rows, to_its_service
from observability.grafana.queries import NO_PROBES, RATE, REQUESTS, promql, promql_now, quantile, share

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph
    from grafana_foundation_sdk.models.dashboard import Dashboard


_SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")

PARTS = "min by (job) (up)" + "".join(f' or 0 * absent(up{{job="{service}"}})' for service in _SERVICES)
"""In Docker Compose a container that is gone is in no name server, so that there is no `up` of it: 0, then."""

FIRING = (
    'label_replace(sum by (alertname, severity) (ALERTS{alertstate="firing"}),'
    ' "runbook", "docs/runbooks/$1.md", "alertname", "(.+)")'
    ' or on () label_replace(vector(0), "alertname", "none", "", "")'
)
"""ALERTS has no annotations, but a runbook has its alert's name. `on ()`: beside an alert there is no `none`."""


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "overview",
        "Is anything wrong, for whom, and since when? Each line leads to the dashboard of its service.",
        [
            numbers(
                "Parts",
                "Does each part answer Prometheus? Of a part with replicas, the worst one of those that there are.",
                promql_now(PARTS, "{{job}}"),
                unit="none",
                words={"0": ("DOWN", BAD), "1": ("up", GOOD)},
                width=12,
            ),
            rows(
                "Alerts that fire",
                "Is anybody called, and what is to be done? `none` is good; a runbook is a file of this project.",
                promql_now(FIRING),
                columns={"alertname": "alert", "severity": "severity", "Value": "how many", "runbook": "runbook"},
                width=12,
            ),
            bars(
                "SLO budget left",
                "How much of what may go wrong in 7 days is left? Below 25 % changes should wait; at 0 it is spent.",
                promql_now('slo:period_error_budget_remaining:ratio{sloth_service="shop"}', "{{sloth_slo}}"),
                unit="percentunit",
                low_is_bad=(0, 0.25),
            ),
            bars(
                "SLO burn rate",
                "How fast is it spent? At 1 it lasts for the 7 days; above 13.44 for an hour somebody is paged.",
                promql_now('slo:current_burn_rate:ratio{sloth_service="shop"}', "{{sloth_slo}}"),
                unit="suffix:x",
                steps=(1, 13.44),
            ),
            to_its_service(
                graph(
                    "Requests",
                    "Who is asked how much? Health checks are left out.",
                    promql(f"sum by (job) (job_route:http_server_requests:rate1m{{{NO_PROBES}}})", "{{job}}"),
                    unit="reqps",
                )
            ),
            to_its_service(
                graph(
                    "Failed requests",
                    "What share of the requests ends with a status of 500 or above?",
                    promql(
                        share(
                            f'rate({REQUESTS}_count{{http_response_status_code=~"5..", {NO_PROBES}}}[{RATE}])',
                            f"rate({REQUESTS}_count{{{NO_PROBES}}}[{RATE}])",
                            by="job",
                        ),
                        "{{job}}",
                    ),
                    unit="percentunit",
                    steps=(0.001, 0.01),
                )
            ),
            to_its_service(
                graph(
                    "Latency, p99",
                    "How long do the slowest of 100 requests take? A point is a trace: open it.",
                    promql(quantile(0.99, REQUESTS, "job", NO_PROBES), "{{job}}", exemplars=True),
                    unit="s",
                    steps=(0.5, 1),
                )
            ),
            cpu(width=12),
        ],
    )


def cpu(width: int) -> Graph:
    """Draw what saturates first: a service is one process of Python, which uses one core."""
    return to_its_service(
        graph(
            "CPU of the busiest replica",
            "Who is near its limit? A replica cannot use more than one core; the gateway's own is not measured.",
            promql(f'max by (job) (rate(process_cpu_seconds_total{{job=~".+-service"}}[{RATE}]))', "{{job}}"),
            unit="percentunit",
            steps=(0.7, 0.9),
            width=width,
        )
    )
