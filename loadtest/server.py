"""The same time as the services saw it, asked of Prometheus."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import urllib3

SERVICES = ("nginx", "auth-service", "user-service", "product-service", "order-service", "payment-service")
KEEPERS = ("embedded-backend",)
"""Who serves no customer, but may grow."""

_ALL = 'http_server_request_duration_seconds_{kind}{{service_name="{service}",http_route!~"/healthz|/readyz|/metrics"}}'
_ORDERS = (
    'http_server_request_duration_seconds_{kind}{{service_name="{service}",http_route="/orders/",'
    'http_request_method="POST",http_response_status_code=~"201|202"}}'
)
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SHORTEST = 10
"""Two scrapes, without which there is no rate. What is shorter is told of these seconds."""
_SETTLED_AFTER = 60
"""Seconds after which a process has the memory that it goes on with."""


class Prometheus:
    """Answers questions about a window of time. What it cannot answer is None."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._pool = urllib3.PoolManager(timeout=10, retries=False)

    def reachable(self) -> bool:
        """Tell whether it answers at all."""
        return self._ask("vector(1)", None) == 1

    def view(self, began: float, ended: float) -> dict[str, Any]:
        """Give rate, latency, CPU time and memory of each service, and the latency of orders.

        Args:
            began: Seconds since the epoch.
            ended: The same; scrapes until then must be there.
        """
        window = f"[{max(_SHORTEST, round(ended - began))}s]"
        return {
            "services": {service: self._service(service, began, ended, window) for service in SERVICES + KEEPERS},
            "orders": {
                service: self._latency(_ORDERS, service, window, ended) for service in ("nginx", "order-service")
            },
        }

    def _service(self, service: str, began: float, ended: float, window: str) -> dict[str, float | None]:
        cpu = f'sum(rate(process_cpu_seconds_total{{service_name="{service}"}}{window}))'
        memory = f'sum(process_resident_memory_bytes{{service_name="{service}"}})'
        later = began + _SETTLED_AFTER
        return {
            **self._latency(_ALL, service, window, ended),
            "cores": self._ask(cpu, ended),
            "memory_bytes": self._ask(memory, ended),
            "memory_bytes_after_a_minute": self._ask(memory, later) if later < ended else None,
        }

    def _latency(self, metric: str, service: str, window: str, at: float) -> dict[str, float | None]:
        count, bucket = (metric.format(kind=kind, service=service) + window for kind in ("count", "bucket"))
        answers = {"rate": self._ask(f"sum(rate({count}))", at)}
        for name, share in _PERCENTILES.items():
            seconds = self._ask(f"histogram_quantile({share}, sum by (le) (rate({bucket})))", at)
            answers[f"{name}_ms"] = None if seconds is None else seconds * 1000
        return answers

    def _ask(self, query: str, at: float | None) -> float | None:
        fields = {"query": query} | ({"time": f"{at:.3f}"} if at else {})
        try:
            answer = self._pool.request("GET", self._url, fields=fields)
            result = answer.json()["data"]["result"] if answer.status == HTTPStatus.OK else []
        except (urllib3.exceptions.HTTPError, ValueError, KeyError):
            return None
        value = float(result[0]["value"][1]) if result else math.nan
        return value if math.isfinite(value) else None
