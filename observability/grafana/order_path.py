"""What the shop is for: from the login to the paid order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board, choice_of_duration
from observability.grafana.panels import bars, found_traces, graph, heat, lines, numbers, stack
from observability.grafana.queries import RATE, REQUESTS, Search, logql, promql, promql_now, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_PLACED = 'job="order-service", http_request_method="POST", http_route="/orders/"'


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "order-path",
        "Do people who want to buy something get it, and if not, where does it end?",
        [
            bars(
                "Login, order, paid",
                "How many got how far, in the time shown? An order needs no login of its own: a token lasts an hour.",
                promql_now('sum(increase(logins_total{outcome="succeeded"}[$__range]))', "1. logged in"),
                promql_now('sum(increase(orders_total{status="PENDING"}[$__range]))', "2. ordered"),
                promql_now('sum(increase(orders_total{status="PAID"}[$__range]))', "3. paid"),
                unit="short",
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
            stack(
                "Orders by status",
                "What becomes of orders? Each is PENDING once, and PAID or DECLINED once.",
                promql(f"sum by (status) (rate(orders_total[{RATE}]))", "{{status}}"),
                unit="suffix: orders/s",
            ),
            stack(
                "Charges by outcome",
                "What does payment say? DECLINED is business, UNAVAILABLE is technology.",
                promql(f"sum by (outcome) (rate(payments_total[{RATE}]))", "{{outcome}}"),
                unit="suffix: charges/s",
            ),
            graph(
                "Paid, in money",
                "What is it worth? Summed up from the log lines of the charges, a minute each.",
                logql(
                    'sum by (currency) (sum_over_time({service_name="payment-service"} | json'
                    ' | event="charge.decided" | outcome="PAID" | unwrap amount_minor [1m])) / 100',
                    "{{currency}}",
                ),
                unit="suffix: a minute",
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
            lines(
                "What order and payment say",
                "What happened, in words, to which order?",
                '{service_name=~"order-service|payment-service"} | json | event!="request.completed"',
                width=24,
            ),
        ],
        variables=[choice_of_duration],
    )
