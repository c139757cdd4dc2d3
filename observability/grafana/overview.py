"""The first page: is anything wrong, and where?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board
from observability.grafana.panels import (
    BAD,
    GOOD,
    RUNBOOK,
    Column,
    Link,
    calls,
    graph,
    history,
    lines,
    numbers,
    rows,
    table_of,
    to_its_service,
)
from observability.grafana.queries import (
    NO_PROBES,
    RATE,
    REQUESTS,
    events_said,
    others_said,
    promql,
    promql_now,
    quantile,
    requests_said,
    share,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph
    from grafana_foundation_sdk.models.dashboard import Dashboard


_SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")

PARTS = "min by (job) (up)" + "".join(f' or 0 * absent(up{{job="{service}"}})' for service in _SERVICES)
"""In Docker Compose a container that is gone is in no name server, so that there is no `up` of it: 0, then."""

_NONE = 'or on () label_replace(vector(0), "alertname", "none", "", "")'
"""`on ()`: beside an alert there is no `none`, whose runbook is the list of all."""

FIRING = f'sum by (alertname, severity) (ALERTS{{alertstate="firing"}}) {_NONE}'

SLOS = '{sloth_service="shop"}'

_ERRORS = '{service_namespace="shop"} | level=~"error|critical"'

_FAILED = share(
    f'rate({REQUESTS}_count{{http_response_status_code=~"5..", {NO_PROBES}}}[{RATE}])',
    f"rate({REQUESTS}_count{{{NO_PROBES}}}[{RATE}])",
    by="job",
)
_ASKED = f"sum by (job) (job_route:http_server_requests:rate1m{{{NO_PROBES}}})"
_CPU = f'max by (job) (rate(process_cpu_seconds_total{{job=~".+-service"}}[{RATE}]))'


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "overview",
        "Is anything wrong, for whom, and since when? Each line leads to the dashboard of its service.",
        {
            "Now": [
                numbers(
                    "Parts",
                    "Does each part answer Prometheus? Of a part with replicas, the worst one of those that there are.",
                    promql_now(PARTS, "{{job}}"),
                    unit="none",
                    words={"0": ("DOWN", BAD), "1": ("up", GOOD)},
                    width=24,
                    height=3,
                ),
                table_of(
                    "Services",
                    "Which service is in trouble: asked too much, failing, slow, or at the end of its CPU? Of the last"
                    " minute. A row leads to its dashboard.",
                    "job",
                    "service",
                    Column("requests", _ASKED, "reqps"),
                    Column("failed", _FAILED, "percentunit", steps=(0.001, 0.01), none="no requests"),
                    Column("p99", quantile(0.99, REQUESTS, "job", NO_PROBES), "s", steps=(0.5, 1), none="no requests"),
                    Column("CPU", _CPU, "percentunit", steps=(0.7, 0.9), none="not measured"),
                    link=Link(
                        "Open ${__data.fields.service}",
                        "/d/service?var-service=${__data.fields.service}&${__url_time_range}",
                    ),
                    width=14,
                ),
                rows(
                    "Alerts that fire",
                    "Is anybody called, and what is to be done? `none` is good. A row leads to the alert's runbook.",
                    FIRING,
                    columns={"alertname": "alert", "severity": "severity", "Value": "how many"},
                    link=Link("Runbook of ${__data.fields.alert}", RUNBOOK.format("__data.fields.alert")),
                    width=10,
                ),
            ],
            "Who calls whom, and what went wrong": [
                calls(
                    "Service map",
                    "Who calls whom, and how often, in the time shown? From the traces, so the database is not in it.",
                ),
                lines(
                    "Errors in the logs",
                    "What went wrong, in words, at any service? A line leads to its trace.",
                    requests_said(_ERRORS),
                    events_said(_ERRORS),
                    others_said(_ERRORS),
                    none="No line of any service is an error, in the time shown",
                ),
            ],
            "Promises": [
                table_of(
                    "SLOs",
                    "How much of what may go wrong in 7 days is left, and how fast is it spent? At a burn rate of 1 it"
                    " lasts for the 7 days; above 13.44 for an hour somebody is paged. `counted over` is for how long"
                    " there was something to count: with less than a day of that, one bad event is much of the budget.",
                    "sloth_slo",
                    "SLO",
                    Column("promised", f"sum by (sloth_slo) (slo:objective:ratio{SLOS})", "percentunit"),
                    Column(
                        "budget left",
                        f"sum by (sloth_slo) (slo:period_error_budget_remaining:ratio{SLOS})",
                        "percentunit",
                        low_is_bad=(0, 0.25),
                        none="nothing counted",
                    ),
                    Column(
                        "burn rate",
                        f"sum by (sloth_slo) (slo:current_burn_rate:ratio{SLOS})",
                        "suffix:x",
                        steps=(1, 13.44),
                        none="nothing counted",
                    ),
                    # The rule is computed each 15 s, and has no value while there is nothing to count.
                    Column(
                        "counted over",
                        f"sum by (sloth_slo) (count_over_time(slo:sli_error:ratio_rate5m{SLOS}[7d])) * 15",
                        "s",
                        none="nothing counted",
                    ),
                    link=None,
                    width=12,
                ),
                graph(
                    "SLO burn rate",
                    "Since when is a budget spent too fast? The ratio of the last 5 minutes to what may go wrong.",
                    promql(f"max by (sloth_slo) (slo:current_burn_rate:ratio{SLOS})", "{{sloth_slo}}"),
                    unit="suffix:x",
                    steps=(1, 13.44),
                    none="Nothing to count in the time shown",
                ),
                history(
                    "Alerts, over time",
                    "What fired, and when? A bar leads to the alert's runbook.",
                    f'max by (alertname, severity) (ALERTS{{alertstate="firing"}}) {_NONE}',
                    "{{alertname}} {{severity}}",
                    words={"0": ("all is well", GOOD), "1": ("fires", BAD)},
                ),
            ],
            "Over time": [
                to_its_service(
                    graph(
                        "Requests",
                        "Who is asked how much? Health checks are left out.",
                        promql(_ASKED, "{{job}}"),
                        unit="reqps",
                    )
                ),
                to_its_service(
                    graph(
                        "Failed requests",
                        "What share of the requests ends with a status of 500 or above?",
                        promql(_FAILED, "{{job}}"),
                        unit="percentunit",
                        steps=(0.001, 0.01),
                        none="No requests in the time shown",
                    )
                ),
                to_its_service(
                    graph(
                        "Latency, p99",
                        "How long do the slowest of 100 requests take? A point is a trace: open it.",
                        promql(quantile(0.99, REQUESTS, "job", NO_PROBES), "{{job}}", exemplars=True),
                        unit="s",
                        steps=(0.5, 1),
                        none="No requests in the time shown",
                    )
                ),
                cpu(width=12),
            ],
        },
    )


def cpu(width: int) -> Graph:
    """Draw what saturates first: a service is one process of Python, which uses one core."""
    return to_its_service(
        graph(
            "CPU of the busiest replica",
            "Who is near its limit? A replica cannot use more than one core; the gateway's own is not measured.",
            promql(_CPU, "{{job}}"),
            unit="percentunit",
            steps=(0.7, 0.9),
            width=width,
        )
    )
