"""The load test's own metrics, for the dashboard: what the clients see, beside what the services see."""

from __future__ import annotations

from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

Outcome = Literal["ok", "expected", "failed"]

# As the services' own, so that the two can be laid beside each other; the image has no servicekit to take them from.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STATUSES = ("PAID", "DECLINED", "PENDING")


class LoadTestMetrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each is pure cost
        self.registry = CollectorRegistry()
        self.users = Gauge("loadtest_users", "Users that are shopping.", registry=self.registry)
        self._duration = Histogram(
            "loadtest_request_duration_seconds",
            "Duration of requests, as the client sees it.",
            ["http_request_method", "http_route", "outcome"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._orders = Counter(
            "loadtest_orders",
            "Orders placed, by the status that the client was told.",
            ["status"],
            registry=self.registry,
        )
        for status in _STATUSES:
            self._orders.labels(status)

    def request(self, method: str, route: str, outcome: Outcome, seconds: float, trace_id: str) -> None:
        """Count a request; the trace id, if it has one that is kept, becomes the exemplar."""
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._duration.labels(method, route, outcome).observe(seconds, exemplar)

    def order(self, status: str) -> None:
        """Count an order."""
        self._orders.labels(status).inc()

    def serve(self, host: str, port: int) -> None:
        """Answer Prometheus from now on.

        Raises:
            OSError: The port is taken.
        """
        start_http_server(port, host, self.registry)
