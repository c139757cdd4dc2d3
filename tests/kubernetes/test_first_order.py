"""From an empty cluster to an order whose trace, log lines and metrics are found, with Kubernetes' attributes."""

import time

import pytest
import requests

from tests.fixtures.services import eventually
from tests.kubernetes.cluster import SERVICES

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

WATCHING = {"nginx", "collector", "collector-agent", "prometheus", "embedded-backend"}
"""Jobs of Prometheus that are no services: nginx is gateway-telemetry."""


@pytest.fixture(scope="module")
def backends(shop):
    """The URLs of (Jaeger's API, Loki's API, Prometheus)."""
    return (
        shop.forward("shop-telemetry", "embedded-backend", 16686),
        shop.forward("shop-telemetry", "embedded-backend", 3100),
        shop.forward("shop-telemetry", "prometheus", 9090),
    )


@pytest.fixture(scope="module", autouse=True)
def connected(shop):
    """A way to the gateway as it is now: other tests have replaced its pod."""
    shop.connect()


@pytest.fixture(scope="module")
def ordered(shop, connected):
    """An order's id and its trace's, and the pods that were there."""
    pods = {name: shop.pods(name) for name in (*SERVICES, "nginx")}
    return *shop.order(shop.login()), pods


def ask(url, **parameters):
    """What a backend answers, from JSON; None if it has nothing."""
    answer = requests.get(url, params=parameters, timeout=10)
    return answer.json() if answer.ok else None


def test_an_order_is_listed_for_who_placed_it(shop, ordered):
    token = shop.login()
    assert ordered[0] in {order["id"] for order in shop.gateway.get("/orders/", token).json()["items"]}
    assert shop.gateway.get("/users/me", token).json()["username"] == "admin"


def test_what_is_internal_is_not_served_by_the_entry(shop):
    for path in ("/metrics", "/readyz", "/internal/charges"):
        assert shop.gateway.get(path).status_code == 404


def test_the_trace_of_an_order_goes_from_the_gateway_to_the_database_and_names_the_pods(backends, ordered):
    _, trace_id, pods = ordered

    def trace():
        found = ask(f"{backends[0]}/api/traces/{trace_id}")
        spans = found["data"][0]["spans"] if found and found["data"] else []
        names = {span["operationName"] for span in spans}
        return (
            found["data"][0]
            if {"INSERT orders", "UPDATE orders", "INSERT payments"} <= names and len(spans) >= 12
            else None
        )

    whole = eventually(trace, 30, pause=0.3)
    resources = {
        process["serviceName"]: {tag["key"]: tag["value"] for tag in process["tags"]}
        for process in whole["processes"].values()
    }
    assert set(resources) == {"nginx", "order-service", "product-service", "payment-service"}
    for service, tags in resources.items():
        assert tags["deployment.environment.name"] == "kubernetes"
        assert (tags["k8s.namespace.name"], tags["k8s.deployment.name"]) == ("shop", service)
        if service != "nginx":  # the line that its span is made of does not name the pod
            assert tags["k8s.pod.name"] in pods[service]
            assert tags["k8s.node.name"]
    (root,) = [span for span in whole["spans"] if not span["references"]]
    assert whole["processes"][root["processID"]]["serviceName"] == "nginx"


def test_the_log_lines_of_an_order_are_found_by_its_trace_and_name_the_pods(backends, ordered):
    _, trace_id, pods = ordered

    def lines():
        found = ask(
            f"{backends[1]}/loki/api/v1/query_range",
            query=f'{{service_name=~".+"}} | trace_id="{trace_id}"',
            start=time.time_ns() - 600 * 10**9,
        )
        streams = [entry["stream"] for entry in found["data"]["result"]] if found else []
        return (
            streams
            if {"nginx", "order-service", "product-service", "payment-service"}
            <= {stream["service_name"] for stream in streams}
            else None
        )

    for stream in eventually(lines, 30, pause=0.3):
        assert stream["service_namespace"] == "shop"
        assert stream["deployment_environment_name"] == "kubernetes"
        assert stream["k8s_namespace_name"] == "shop"
        assert stream["k8s_pod_name"] in pods[stream["service_name"]]
        assert stream["k8s_container_name"] == stream["service_name"]


def test_metrics_of_an_order_are_counted_and_name_the_pods(backends, ordered):
    pods = ordered[2]

    def values(query):
        found = ask(f"{backends[2]}/api/v1/query", query=query)
        return [(one["metric"], float(one["value"][1])) for one in found["data"]["result"]] if found else []

    def counted():  # by one of the pods that are there: other tests have ended some before
        found = values('orders_total{job="order-service", status="PAID"} >= 1')
        return [labels for labels, _ in found if labels["k8s_pod_name"] in pods["order-service"]]

    [labels, *_] = eventually(counted, 30, pause=0.5)
    assert labels["k8s_namespace_name"] == "shop"
    # The gateway's, made of its log; and those that the Collector makes of spans.
    eventually(
        lambda: values('http_server_request_duration_seconds_count{job="nginx", http_route="/orders/"} > 0'),
        30,
        pause=0.5,
    )
    eventually(lambda: values('traces_span_metrics_calls_total{job="order-service"} > 0'), 30, pause=0.5)
    eventually(lambda: values("gateway_up == 1"), 30, pause=0.5)

    def all_up():  # also once those that other tests have ended are forgotten
        found = values("up")
        return found if len(found) >= 10 and all(value for _, value in found) else []

    up = eventually(all_up, 60, pause=0.5)
    assert {labels["job"] for labels, _ in up} >= {*SERVICES, *WATCHING}
