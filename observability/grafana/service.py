"""One dashboard for every service, and for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import (
    board,
    choice_of_duration,
    choice_of_level,
    choice_of_route,
    choice_of_service,
    search,
)
from observability.grafana.panels import counted, found_traces, graph, lines, stack
from observability.grafana.queries import (
    NO_PROBES,
    RATE,
    REQUESTS,
    STATEMENTS_OF_WORK,
    Search,
    counts_of_lines,
    events_said,
    logql,
    others_said,
    promql,
    quantile,
    requests_said,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_OF = 'job="$service"'
_CHOSEN = f'{_OF}, http_route=~"$route", {NO_PROBES}'
_SERVICE = '{service_name="$service"}'
_LEVEL = f'{_SERVICE} | level=~"$level"'
_FOUND = " |~ `(?i)${search:regex}`"


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "service",
        "How is this service, what does it wait for, and what does it say? The route is for requests and their lines,"
        " the search and the level for the log.",
        {
            "Requests": [
                graph(
                    "Requests",
                    "What is it asked? Health checks are left out.",
                    promql(
                        f"sum by (http_route) (job_route:http_server_requests:rate1m{{{_CHOSEN}}})",
                        "{{http_route}}",
                    ),
                    unit="reqps",
                ),
                stack(
                    "Requests that did not go well",
                    "Who is refused (4xx), and what fails (5xx)?",
                    promql(
                        "sum by (http_request_method, http_route, http_response_status_code)"
                        f' (rate({REQUESTS}_count{{{_CHOSEN}, http_response_status_code=~"[45].."}}[{RATE}]))',
                        "{{http_response_status_code}} {{http_request_method}} {{http_route}}",
                    ),
                    unit="reqps",
                    none="All went well: no request was refused, and none failed",
                ),
                graph(
                    "Latency, p50 and p99",
                    "How long does it take, usually and at worst? A point is a trace: open it.",
                    promql(
                        quantile(0.5, REQUESTS, "http_route", f"{_CHOSEN}"),
                        "{{http_route}} p50",
                    ),
                    promql(
                        quantile(0.99, REQUESTS, "http_route", f"{_CHOSEN}"),
                        "{{http_route}} p99",
                        exemplars=True,
                    ),
                    unit="s",
                    steps=(0.5, 1),
                    none="No requests in the time shown",
                ),
                graph(
                    "What it waits for, p99",
                    "If it is slow: is it another service, or the database?",
                    promql(
                        quantile(0.99, "http_client_request_duration_seconds", "peer_service, http_route", _OF),
                        "{{peer_service}} {{http_route}}",
                        exemplars=True,
                    ),
                    promql(
                        quantile(0.99, "gateway_upstream_duration_seconds", "peer_service", _OF),
                        "{{peer_service}}",
                        exemplars=True,
                    ),
                    promql(
                        quantile(
                            0.99,
                            "db_client_operation_duration_seconds",
                            "db_query_summary",
                            f"{_OF}, {STATEMENTS_OF_WORK}",
                        ),
                        "{{db_query_summary}}",
                        exemplars=True,
                    ),
                    unit="s",
                    steps=(0.5, 1),
                    none="It waits for nobody",
                ),
            ],
            "Is it full?": [
                graph(
                    "Requests in work",
                    "Is it full? It works on 16 at once.",
                    promql(f"sum by (instance) (http_server_active_requests{{{_OF}}})", "{{instance}}"),
                    unit="short",
                    steps=(12, 16),
                    width=6,
                    none="The gateway does not count these",
                ),
                graph(
                    "Requests turned away",
                    "Was it too full? What finds no turn within 2 s gets a 503. Any is too many.",
                    promql(
                        f"sum by (instance) (rate(http_server_requests_rejected_total{{{_OF}}}[{RATE}]))",
                        "{{instance}}",
                    ),
                    unit="reqps",
                    steps=(0.001, 1),
                    width=6,
                    none="The gateway does not count these",
                ),
                graph(
                    "CPU",
                    "Is it near its limit? A replica is one process of Python, and uses no more than one core.",
                    promql(f"rate(process_cpu_seconds_total{{{_OF}}}[{RATE}])", "{{instance}}"),
                    unit="percentunit",
                    steps=(0.7, 0.9),
                    width=6,
                    none="The gateway's own is not measured",
                ),
                graph(
                    "Memory",
                    "Does it grow without end?",
                    promql(f"process_resident_memory_bytes{{{_OF}}}", "{{instance}}"),
                    unit="bytes",
                    width=6,
                    none="The gateway's own is not measured",
                ),
            ],
            "Traces and log": [
                counted(
                    "Log lines by level",
                    "Does it complain, and since when? Those with the searched text; a bar is half a minute or more.",
                    *(logql(expr, "{{level}}") for expr in counts_of_lines(_SERVICE, _FOUND)),
                    unit="short",
                    each="30s",
                    width=12,
                ),
                found_traces(
                    "Slowest requests",
                    "Which of its newest requests took longest, and what did they wait for?",
                    Search("$service", "", "$slower_than"),
                ),
                lines(
                    "Log",
                    "What does it say? A line leads to its trace; it shows its fields, searched too, when opened.",
                    requests_said(_LEVEL, ' | http_route=~"$route"' + _FOUND),
                    events_said(_LEVEL, _FOUND),
                    others_said(_LEVEL, _FOUND),
                    none="No such line in the time shown",
                    width=24,
                ),
            ],
        },
        variables=[choice_of_service, choice_of_route, choice_of_duration, choice_of_level, search],
    )
