"""What the shop is for: from the login to the paid order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board, choice_of_duration
from observability.grafana.colours import COLOURS
from observability.grafana.panels import bars, found_traces, graph, heat, in_unit, lines, numbers, over_the_stack, stack
from observability.grafana.queries import RATE, REQUESTS, Search, events_said, logql, promql, promql_now, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_STATUS = COLOURS["status"]
ORDERED = _STATUS["PENDING"]
"""Each order is PENDING first, so this counts all of them."""

_PLACED = 'job="order-service", http_request_method="POST", http_route="/orders/"'


def _in_the_time_shown(status: str) -> str:
    return f'round(sum(increase(orders_total{{status="{status}"}}[$__range])))'


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "order-path",
        "Do people who want to buy something get it, and if not, where does it end?",
        {
            "How many": [
                bars(
                    "Ordered, paid, declined",
                    "What became of the orders, in the time shown? What is neither paid nor declined waits.",
                    promql_now(_in_the_time_shown("PENDING"), "ordered"),
                    promql_now(_in_the_time_shown("PAID"), "paid"),
                    promql_now(_in_the_time_shown("DECLINED"), "declined"),
                    unit="short",
                    colors={"ordered": ORDERED, "paid": _STATUS["PAID"], "declined": _STATUS["DECLINED"]},
                    width=10,
                ),
                numbers(
                    "Waiting",
                    "How many orders wait for their charge now?",
                    promql_now("max(orders_pending)", "PENDING orders"),
                    unit="short",
                    steps=(10, 100),
                    width=7,
                ),
                numbers(
                    "The longest wait",
                    "For how long has the oldest of them waited? The reconciler should settle it within 30 s.",
                    promql_now("max(orders_pending_oldest_age_seconds)", "oldest PENDING order"),
                    unit="s",
                    steps=(30, 120),
                    width=7,
                ),
                over_the_stack(
                    stack(
                        "Orders by status",
                        "What becomes of orders? Where the line is above the areas, orders wait to be settled.",
                        promql(f'sum by (status) (rate(orders_total{{status!="PENDING"}}[{RATE}]))', "{{status}}"),
                        promql(f'sum(rate(orders_total{{status="PENDING"}}[{RATE}]))', "ordered"),
                        unit="suffix:orders/s",
                    ),
                    "ordered",
                    ORDERED,
                ),
                stack(
                    "Charges by outcome",
                    "What does payment say? DECLINED is business, UNAVAILABLE is technology.",
                    promql(f"sum by (outcome) (rate(payments_total[{RATE}]))", "{{outcome}}"),
                    unit="suffix:charges/s",
                ),
                in_unit(
                    graph(
                        "Paid, in money",
                        "What is it worth, a minute? Summed up from the log lines of the charges.",
                        logql(
                            'sum by (currency) (sum_over_time({service_name="payment-service"} | json'
                            ' | event="charge.decided" | outcome="PAID" | unwrap amount_minor [1m])) / 100',
                            "{{currency}}",
                        ),
                        unit="short",
                        none="Nothing was paid in the time shown",
                    ),
                    "/^EUR$/",
                    "currencyEUR",
                ),
                graph(
                    "What an order waits for, p99",
                    "If orders are slow: is it product, payment or the database?",
                    promql(
                        quantile(
                            0.99,
                            "http_client_request_duration_seconds",
                            "peer_service",
                            'job="order-service", peer_service=~"product-service|payment-service"',
                        ),
                        "{{peer_service}}",
                        exemplars=True,
                    ),
                    promql(
                        quantile(
                            0.99,
                            "db_client_operation_duration_seconds",
                            "db_query_summary",
                            'job="order-service", db_query_summary=~"INSERT orders|UPDATE orders"',
                        ),
                        "{{db_query_summary}}",
                        exemplars=True,
                    ),
                    unit="s",
                    steps=(0.5, 1),
                ),
            ],
            "How long": [
                heat(
                    "How long placing an order takes",
                    "Are all orders slow, or some? Each point is an order's trace: open it.",
                    f"{REQUESTS}_bucket{{{_PLACED}}}",
                    unit="s",
                ),
                found_traces(
                    "Slowest orders",
                    "Which of the newest orders took longest, and what did they wait for?",
                    Search("order-service", "POST /orders/", "$slower_than"),
                ),
            ],
            "What happened": [
                lines(
                    "What order and payment say",
                    "What happened, in words, to which order?",
                    events_said('{service_name=~"order-service|payment-service"}'),
                    none="Nothing was ordered in the time shown",
                    width=24,
                ),
            ],
        },
        variables=[choice_of_duration],
    )
