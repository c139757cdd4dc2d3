"""A load test, as Locust sees it beside what the services see: it has data while `make load` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board
from observability.grafana.overview import cpu
from observability.grafana.panels import dashed, graph, stack
from observability.grafana.queries import RATE, REQUESTS, promql, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_SEEN = "loadtest_request_duration_seconds"
_GATEWAY = 'job="nginx"'


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "load",
        "How does the shop stand this load, and do its own numbers agree with what its users feel?",
        {
            "The load": [
                graph(
                    "Users",
                    "How many people are in the shop?",
                    promql("sum(loadtest_users)", "users"),
                    unit="short",
                    width=8,
                ),
                graph(
                    "Requests",
                    "Does the gateway see what Locust sends? What is missing was never let in.",
                    promql(f"sum(rate({_SEEN}_count[{RATE}]))", "Locust"),
                    promql(f"sum(rate({REQUESTS}_count{{{_GATEWAY}}}[{RATE}]))", "gateway"),
                    unit="reqps",
                    width=8,
                ),
                graph(
                    "Latency, p50 and p99",
                    "What do users feel that the gateway does not see? Between the lines: network, Locust itself.",
                    promql(quantile(0.5, _SEEN, ""), "Locust p50"),
                    promql(quantile(0.99, _SEEN, ""), "Locust p99", exemplars=True),
                    promql(quantile(0.5, REQUESTS, "", _GATEWAY), "gateway p50"),
                    promql(quantile(0.99, REQUESTS, "", _GATEWAY), "gateway p99", exemplars=True),
                    unit="s",
                    steps=(0.5, 1),
                    width=8,
                ),
            ],
            "What it does to the shop": [
                stack(
                    "Outcome, as users see it",
                    "Does it work? `expected` is an error that was meant, as a decline; `failed` is one that was not.",
                    promql(f"sum by (outcome) (rate({_SEEN}_count[{RATE}]))", "{{outcome}}"),
                    unit="reqps",
                ),
                graph(
                    "Latency by route, p99, as users see it",
                    "Which route is slow?",
                    promql(quantile(0.99, _SEEN, "http_route"), "{{http_route}}", exemplars=True),
                    unit="s",
                    steps=(0.5, 1),
                ),
                dashed(
                    graph(
                        "Orders",
                        "Do Locust (dashes) and the shop count the same? A PENDING one is PAID or DECLINED later.",
                        promql(f"sum by (status) (rate(loadtest_orders_total[{RATE}]))", "{{status}}, Locust"),
                        promql(f"sum by (status) (rate(orders_total[{RATE}]))", "{{status}}, order-service"),
                        unit="suffix:orders/s",
                    ),
                    "/, Locust$/",
                ),
                cpu(width=12),
            ],
        },
        tags=["load"],
    )
