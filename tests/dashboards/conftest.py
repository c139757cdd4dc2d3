"""A healthy shop under light load; beside it a newer Prometheus, the real Loki and Jaeger, as far as they are there."""

import contextlib
import json
import time

import pytest
from prometheus_client import start_http_server

from loadtest.metrics import LoadTestMetrics
from local import prometheus
from tests.conformance.payloads import Trace, log_request, order
from tests.dashboards.asking import Backends
from tests.dashboards.shopping import Shopping
from tests.fixtures.ports import free_port
from tests.fixtures.programs import has_program
from tests.fixtures.real import running, running_if_there
from tests.fixtures.services import Client, eventually
from tests.fixtures.stack import LocalStack


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop of its own, with people in it. It looks to Prometheus as if they were a load test."""
    running_shop = LocalStack(tmp_path_factory.mktemp("dashboards"), LOGIN_RATE="200r/s", CLIENT_CONNECTIONS="10000")
    running_shop.up()
    metrics = LoadTestMetrics()
    port = free_port()
    server, thread = start_http_server(port, "127.0.0.1", metrics.registry)
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"job": "loadtest", "service_name": "loadtest"}}
    (running_shop.run_dir / "conf" / "prometheus" / "targets-load.json").write_text(json.dumps([target]))
    people = Shopping(running_shop.gateway.root, metrics)
    yield running_shop
    try:
        people.stop()
    finally:
        running_shop.down()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def prometheus_3(shop, tmp_path_factory):
    """A Prometheus 3 that scrapes the same targets, with the same rules; None where there is none."""
    program = has_program("prometheus")
    if program is None:
        yield None
        return
    folder = tmp_path_factory.mktemp("prometheus-3")
    port = free_port()
    conf = shop.run_dir / "conf" / "prometheus" / "local.yml"
    command = prometheus.command(program, conf, folder / "data", port)
    client = Client(f"http://127.0.0.1:{port}")
    with running(folder, command, {}, lambda: client.get("/-/ready").status_code == 200):
        yield client
        client.session.close()


@pytest.fixture(scope="module")
def backends(shop):
    """The backends of local mode."""
    clients = [Client(url) for url in (shop.prometheus_url, shop.loki_url, shop.jaeger_url)]
    yield Backends(*clients)
    for client in clients:
        client.session.close()


@pytest.fixture(scope="module")
def real_loki(tmp_path_factory):
    with running_if_there("loki", tmp_path_factory.mktemp("loki")) as real:
        yield real


@pytest.fixture(scope="module")
def real_jaeger(tmp_path_factory):
    with running_if_there("jaeger", tmp_path_factory.mktemp("jaeger")) as real:
        yield real


@pytest.fixture(scope="module")
def others(prometheus_3, real_loki, real_jaeger):
    """Prometheus 3, and the real Loki and Jaeger, or None. Jaeger has a login and an order; for Loki see `copy_log`."""
    login = Trace()
    asked = login.add("auth-service", "POST /auth/login", "server", ms=40)
    login.add("user-service", "POST /internal/credentials", "server", parent=asked, at=5, ms=30)
    if real_jaeger:
        for request in (*login.requests(), *order().requests()):
            assert real_jaeger.otlp.send("traces", request).status_code == 200
    return Backends(prometheus_3, real_loki and real_loki.api, real_jaeger and real_jaeger.api)


@pytest.fixture(scope="module")
def promethei(backends, others):
    """Those with a Prometheus: local mode's, and the newer one where it is there."""
    return [one for one in (backends, others) if one.prometheus]


def copy_log(loki, real):
    """Send the real Loki what the embedded backend has, as the Collector would."""
    for request in _lines(loki):
        assert real.otlp.send("logs", request).status_code in {200, 204}


def _lines(loki):
    """All that the shop said in the last minute, as OTLP."""
    query = {"query": '{service_namespace="shop"}', "start": int((time.time() - 60) * 1e9), "limit": 5000}
    answer = loki.get(
        "/loki/api/v1/query_range", params=query, headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"}
    )
    for stream in answer.json()["data"]["result"]:
        records = [
            (int(at), ids["level"], line, bytes.fromhex(ids.get("trace_id", "")), bytes.fromhex(ids.get("span_id", "")))
            for at, line, rest in stream["values"]
            for ids in [{"level": "info", **rest.get("structuredMetadata", {})}]  # nginx has some lines without
        ]
        yield log_request(stream["stream"]["service_name"], records, environment="local")


@pytest.fixture(scope="module")
def versions(promethei):
    """The versions of Prometheus that are asked, which differ."""
    found = []
    for one in promethei:
        answer = eventually(lambda one=one: one.prometheus.get("/api/v1/status/buildinfo"), 10)
        found.append(answer.json()["data"]["version"])
    return found


@pytest.fixture
def patience():
    """Ask until an answer is right: `patience(lambda: fault)`; fails with the last fault."""
    return wait_until_right


def wait_until_right(find_fault, seconds=15):
    fault = "never asked"

    def none():
        nonlocal fault
        fault = find_fault()
        return fault is None

    with contextlib.suppress(AssertionError):
        eventually(none, seconds, pause=0.5)
    assert fault is None, fault
