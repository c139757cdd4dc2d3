"""The overlay, with the real Collector, Jaeger and Prometheus: an order is seen whole, and needs none of them.

Loki is the real one where its image can be had, and the embedded backend elsewhere: conftest.py.
"""

import json
import re
import time
from contextlib import contextmanager

import pytest
import requests

from tests.compose import browsing
from tests.compose.composed import BACKENDS, SERVICES, SHIPPED
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

ORDER = [
    (None, "nginx POST /orders/"),
    ("nginx POST /orders/", "order-service POST /orders/"),
    ("order-service POST /orders/", "order-service GET /products/{product_id}"),
    ("order-service GET /products/{product_id}", "product-service GET /products/{product_id}"),
    ("order-service POST /orders/", "order-service INSERT orders"),
    ("order-service POST /orders/", "order-service settle order"),
    ("order-service settle order", "order-service POST /internal/charges"),
    ("order-service POST /internal/charges", "payment-service POST /internal/charges"),
    ("payment-service POST /internal/charges", "payment-service SELECT payments"),
    ("payment-service POST /internal/charges", "payment-service decide charge"),
    ("payment-service POST /internal/charges", "payment-service INSERT payments"),
    ("order-service settle order", "order-service UPDATE orders"),
]
# What is scraped beside the services and the gateway.
OTHERS = {"collector", "jaeger", "loki", "prometheus", "alertmanager"}


def edges(trace):
    """The trace as (parent, child) pairs; the parent is None for the root, and `missing` where it is not there."""
    names = {
        span["spanID"]: f"{trace['processes'][span['processID']]['serviceName']} {span['operationName']}"
        for span in trace["spans"]
    }
    parents = {span["spanID"]: [ref["spanID"] for ref in span["references"]] for span in trace["spans"]}
    return sorted(
        ((names.get(parents[span][0], "missing") if parents[span] else None, name) for span, name in names.items()),
        key=str,
    )


def complete(observed, trace_id):
    trace = observed.trace(trace_id)
    return trace if trace and set(ORDER) <= set(edges(trace)) else None


def lines_of(observed, trace_id):
    return observed.lines(f'{{service_name="order-service"}} | trace_id="{trace_id}"')


def seen_again(observed, token):
    """Place orders until one is seen whole: Docker tries again after a third of the time that it could not send."""

    def one_is_seen():
        _, trace_id = observed.place_order(token)
        time.sleep(2)
        return complete(observed, trace_id) and lines_of(observed, trace_id)

    eventually(one_is_seen, 60)


@pytest.fixture(scope="module")
def keys(observed):
    """A token, and an order before all others: with it the services fetch the keys, which is seen in its trace."""
    token = observed.login()
    observed.place_order(token)
    return token


def test_everything_is_healthy(observed):
    assert observed.unhealthy() == []
    state = observed.inspect("prepare")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    ask = "import urllib.request as r; print(r.urlopen('http://collector:13133', timeout=5).read().decode())"
    status, said = observed.inside("gateway-telemetry", "python", "-c", ask)
    assert (status, json.loads(said)["status"]) == (0, "Server available"), said
    assert observed.ask(f"{observed.grafana_url}/api/health")["database"] == "ok"


def test_only_this_machine_reaches_what_is_published(observed):
    published = {
        service: {
            (binding["HostIp"], int(binding["HostPort"]))
            for bindings in observed.inspect(service)["NetworkSettings"]["Ports"].values()
            for binding in bindings or []
        }
        for service in BACKENDS
    }
    ports = {
        "collector": {4318, 24224},
        "jaeger": {16686},
        "loki": {3100},
        "prometheus": {9090},
        "grafana": {3000},
        "console": {3001},
    }
    assert published == {service: {("127.0.0.1", port) for port in ports.get(service, ())} for service in BACKENDS}


def test_an_order_is_one_whole_trace_with_the_gateway_as_its_root(observed, keys):
    _, trace_id = observed.place_order(keys)
    trace = eventually(lambda: complete(observed, trace_id), 10, pause=0.1)
    assert edges(trace) == sorted(ORDER, key=str)


def test_the_console_beside_grafana_shows_an_order_and_leads_to_the_others(observed):
    browsing.order(observed.console_url)  # the services fetch their keys
    orders = [browsing.order(observed.console_url) for _ in range(3)]
    page, took = min(orders, key=lambda order: order[1])
    assert took < 2
    trace_id = re.search(r"/traces/([0-9a-f]{32})", requests.get(page, timeout=10).text)[1]
    shown = requests.get(f"{observed.console_url}/traces/{trace_id}", timeout=10).text
    assert f'href="{observed.jaeger_url}/trace/{trace_id}"' in shown
    board = requests.get(f"{observed.console_url}/dashboards/overview", timeout=20).text
    assert f'href="{observed.grafana_url}/d/overview"' in board


def test_its_log_lines_are_found_by_its_trace_id_with_and_without_json(observed, keys):
    order_id, trace_id = observed.place_order(keys)
    services = {"nginx", "order-service", "product-service", "payment-service"}

    def found(query):
        return observed.lines(query.replace("TRACE", f'trace_id="{trace_id}"'))

    plain = eventually(
        lambda: (
            (lines := found('{service_namespace="shop"} | TRACE'))
            and {labels["service_name"] for labels, _ in lines} == services
            and lines
        ),
        10,
        pause=0.1,
    )
    for labels, entries in plain:
        assert set(labels) == {
            "service_name",
            "service_namespace",
            "deployment_environment_name",
            "trace_id",
            "span_id",
            "level",
        }
        assert (labels["service_namespace"], labels["deployment_environment_name"]) == ("shop", "compose")
        for _, text in entries:
            line = json.loads(text)
            assert {name: line[name] for name in ("trace_id", "span_id", "level")} == {
                name: labels[name] for name in ("trace_id", "span_id", "level")
            }
            assert line["service"] == labels["service_name"]
    [(labels, _)] = found('{service_name="order-service"} | json | event="order.created" | TRACE')
    assert labels["order_id"] == str(order_id)
    assert "__error__" not in labels
    # Loki's way with what is in the line and beside it; nothing but these three is in both.
    assert {name for name in labels if name.endswith("_extracted")} == {
        "trace_id_extracted",
        "span_id_extracted",
        "level_extracted",
    }
    assert found('{service_name="order-service"} | json | TRACE | status="201" | level="info"')


def test_docker_compose_logs_shows_the_same_lines(observed, keys):
    _, trace_id = observed.place_order(keys)
    for service in ("order-service", "nginx"):
        eventually(lambda name=service: trace_id in observed.compose("logs", "--no-log-prefix", name), 10)


def test_all_that_is_scraped_is_up_and_each_job_is_named_by_its_service(observed):
    wanted = {*SERVICES, "nginx", *OTHERS}

    def settled():
        """All is up, and a load test that ended before is forgotten."""
        found = observed.metric("up")
        return {labels["job"] for labels, _ in found} == wanted and all(number == 1 for _, number in found) and found

    ups = eventually(settled, 90, pause=0.5)
    assert all(labels["job"] == labels["service_name"] for labels, _ in ups)
    rules = observed.ask(f"{observed.prometheus_url}/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok"}


def test_alerts_go_to_alertmanager_which_sends_them_nowhere_unless_told(observed):
    def active():
        found = observed.ask(f"{observed.prometheus_url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        return [one["url"] for one in found]

    assert eventually(active, 20, pause=0.5) == ["http://alertmanager:9093/api/v2/alerts"]
    path = "http://127.0.0.1:9093/api/v2/status"  # from inside: its port is not published
    code, told = observed.inside("alertmanager", "wget", "-q", "-O", "-", path)
    assert code == 0, told
    config = json.loads(told)["config"]["original"]
    assert "DatabaseDown" in config
    assert "webhook_configs" not in config


@pytest.mark.parametrize("port", [9090, 3100, 16686, 4318])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
def test_no_page_may_read_what_a_published_port_answers(observed, port, origin):
    paths = {9090: "/api/v1/query?query=up", 3100: "/loki/api/v1/labels", 16686: "/api/services", 4318: "/v1/traces"}
    url = f"http://localhost:{port}{paths[port]}"
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for answer in (
        requests.get(url, headers={"Origin": origin}, timeout=10),
        requests.options(url, headers=asked, timeout=10),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize(
    "path", [":9090/api/v1/otlp/v1/metrics", ":3100/otlp/v1/logs", ":4318/v1/traces", ":4318/v1/logs"]
)
def test_no_page_may_write_without_being_asked_first(observed, path, kind):
    """With these types a browser sends a body to another origin without a question; JSON and protobuf need one."""
    headers = {"Origin": "https://evil.example", "Content-Type": kind}
    answer = requests.post(f"http://localhost{path}", data=b"{}", headers=headers, timeout=10)
    assert 400 <= answer.status_code < 500


def test_the_gateway_and_the_spans_are_counted(observed, keys):
    observed.place_order(keys)
    eventually(
        lambda: observed.metric(
            'http_server_request_duration_seconds_count{job="nginx",http_route="/orders/",http_response_status_code="201"}'
        ),
        20,
        pause=0.5,
    )
    spans = 'traces_span_metrics_calls_total{service_name="payment-service",span_name="decide charge"}'
    eventually(lambda: any(number > 0 for _, number in observed.metric(spans)), 20, pause=0.5)
    assert observed.metric("otelcol_exporter_sent_spans_total > 0")


@pytest.mark.parametrize(
    "series",
    [
        'http_server_request_duration_seconds_bucket{job="order-service"}',
        'http_server_request_duration_seconds_bucket{job="nginx"}',
        'db_client_operation_duration_seconds_bucket{job="payment-service"}',
        'traces_span_metrics_duration_milliseconds_bucket{service_name="order-service"}',
    ],
)
def test_an_exemplar_opens_its_trace(observed, keys, series):
    observed.place_order(keys)

    def opened():
        now = time.time()
        found = observed.ask(
            f"{observed.prometheus_url}/api/v1/query_exemplars", query=series, start=now - 300, end=now + 5
        )
        traces = [one["labels"]["trace_id"] for entry in found["data"] for one in entry["exemplars"]]
        return traces and observed.trace(traces[-1])

    assert eventually(opened, 20, pause=0.5)["spans"]


def test_jaegers_monitor_and_dependencies_have_what_they_show(observed, keys):
    def rates():
        path = f"{observed.jaeger_url}/api/metrics/calls"
        found = observed.ask(path, service="order-service", spanKind="server", lookback=300_000, step=5000)
        return found and found["metrics"]

    def calls():
        now = int(time.time() * 1000)
        found = observed.ask(f"{observed.jaeger_url}/api/dependencies", endTs=now, lookback=600_000)
        return {(one["parent"], one["child"]) for one in found["data"]} >= {
            ("nginx", "order-service"),
            ("order-service", "payment-service"),
        }

    def placed():
        observed.place_order(keys)
        return rates() and calls()

    eventually(placed, 30, pause=1)


def test_each_replica_is_scraped_and_none_is_down_once_one_has_gone(observed, keys):
    def replicas():
        return [(labels["instance"], number) for labels, number in observed.metric('up{job="order-service"}')]

    observed.compose("up", "-d", "--no-recreate", "--scale", "order-service=2", "order-service", seconds=120)
    observed.wait_until_ready()
    eventually(lambda: [number for _, number in replicas()] == [1, 1], 30, pause=0.5)
    assert len({instance for instance, _ in replicas()}) == 2
    observed.compose("up", "-d", "--no-recreate", "--scale", "order-service=1", "order-service", seconds=120)
    eventually(lambda: [number for _, number in replicas()] == [1], 30, pause=0.5)
    eventually(lambda: observed.gateway.get("/orders/", keys).status_code == 200, 10)


def test_traces_lines_and_metrics_survive_a_new_container(observed, keys):
    _, trace_id = observed.place_order(keys)
    eventually(lambda: complete(observed, trace_id) and lines_of(observed, trace_id), 10)
    before = time.time()
    observed.compose("up", "-d", "--no-deps", "--force-recreate", "--wait", "jaeger", "loki", "prometheus", seconds=120)
    assert complete(observed, trace_id)
    assert lines_of(observed, trace_id)
    then = observed.ask(f"{observed.prometheus_url}/api/v1/query", query="up", time=before)
    assert then["data"]["result"]
    seen_again(observed, keys)


@contextmanager
def without_collector(observed, harm, heal):
    collector = observed.containers("collector")[0]
    observed.run("docker", harm, collector)
    try:
        yield
    finally:
        observed.run("docker", heal, collector)


@pytest.mark.parametrize(("harm", "heal"), [("kill", "start"), ("pause", "unpause")], ids=["dead", "frozen"])
def test_the_shop_starts_serves_and_stops_without_the_collector_and_then_is_seen_again(observed, keys, harm, heal):
    with without_collector(observed, harm, heal):
        began = time.monotonic()
        observed.compose("restart", "product-service")
        observed.compose("up", "-d", "--no-deps", "--force-recreate", "payment-service")
        assert time.monotonic() - began < 60
        eventually(lambda: observed.gateway.get("/products/1").status_code == 200, 30)
        eventually(lambda: observed.gateway.post("/orders/", {"product_id": 1}, keys).status_code == 201, 30, pause=0.5)
        took = []
        for _ in range(3):
            began = time.monotonic()
            _, unseen = observed.place_order(keys)
            took.append(time.monotonic() - began)
        assert min(took) < 2
        assert unseen in observed.compose("logs", "--no-log-prefix", "order-service")
    seen_again(observed, keys)
    observed.wait_until_ready()


def test_what_is_shipped_comes_from_each_container_of_the_shop(observed):
    streams = {labels["service_name"] for labels, _ in observed.lines('{service_namespace="shop"}', since_seconds=1800)}
    assert streams <= set(SHIPPED)
    assert streams >= {*SERVICES, "nginx"}


def test_a_backend_that_could_not_be_reached_gets_all_of_it_later(observed, keys):
    observed.run("docker", "stop", observed.containers("jaeger")[0])
    _, trace_id = observed.place_order(keys)
    time.sleep(1)
    observed.run("docker", "restart", observed.containers("collector")[0])  # its queue is on disk
    observed.run("docker", "start", observed.containers("jaeger")[0])
    eventually(lambda: complete(observed, trace_id), 30, pause=0.5)
    observed.wait_until_ready()


def test_grafanas_password_is_its_own_and_readable_by_it_alone(observed):
    path = "/var/lib/grafana/admin_password"
    assert observed.inside("grafana", "stat", "-c", "%u %g %a %s", path) == (0, "472 0 400 32\n")


def test_the_health_checks_pass(observed):
    assert "passed" in observed.health_checks()
