"""The load test's own metrics, as Prometheus gets them."""

import requests

from loadtest.metrics import BUCKETS, LoadTestMetrics
from observability.contract import check_metrics, load, metrics_of
from servicekit.telemetry.metrics import SECONDS
from tests.fixtures.ports import free_port

NAMES = {"loadtest_users", "loadtest_request_duration_seconds", "loadtest_orders_total"}
OPEN_METRICS = {"Accept": "application/openmetrics-text"}


def told(metrics):
    port = free_port()
    metrics.serve("127.0.0.1", port)
    return requests.get(f"http://127.0.0.1:{port}/metrics", headers=OPEN_METRICS, timeout=5).text


def test_it_tells_what_the_contract_says():
    metrics = LoadTestMetrics()
    metrics.users.set(3)
    metrics.request("POST", "/orders/", "ok", 0.03, "ab" * 16)
    metrics.request("POST", "/orders/", "expected", 0.01, "")
    metrics.request("GET", "/orders/{order_id}", "failed", 20.0, "")
    metrics.order("PAID")
    seen = list(metrics_of("loadtest", told(metrics)))
    assert {metric.name for metric in seen} == NAMES
    difference = check_metrics(load(), seen, "local")
    assert not difference.undeclared, difference
    assert any("ab" * 16 in metric.exemplars for metric in seen)


def test_its_buckets_are_the_services():
    assert BUCKETS == SECONDS


def test_orders_count_from_0_in_each_status():
    text = told(LoadTestMetrics())
    for status in ("PAID", "DECLINED", "PENDING"):
        assert f'loadtest_orders_total{{status="{status}"}} 0.0' in text
