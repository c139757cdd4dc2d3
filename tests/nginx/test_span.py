"""The gateway's span, end to end: a request through a real nginx, its log line, the span at a receiver."""

import time

import pytest

from tests.fixtures.gateway import answer
from tests.fixtures.gateway_telemetry import LINE, GatewayTelemetry
from tests.fixtures.otlp import Collector
from tests.fixtures.services import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Watched:
    """A gateway, and who makes spans of its log."""

    def __init__(self, gateway, telemetry, collector):
        self.gateway, self.telemetry, self.collector = gateway, telemetry, collector

    def span(self, traceresponse):
        """The span of a request, by what its client got."""
        _, _, span_id, _ = traceresponse.split("-")
        return eventually(lambda: next((span for span in list(self.collector.spans) if span.span_id == span_id), None))


@pytest.fixture(scope="module")
def telemetry_of_all(shared_gateway, tmp_path_factory):
    """What makes spans of the shared gateway's log, for all tests of this module."""
    collector = Collector()
    telemetry = GatewayTelemetry(
        tmp_path_factory.mktemp("telemetry"),
        ACCESS_LOG_FILE=str(shared_gateway.directory / "stdout"),
        STATE_FILE=str(tmp_path_factory.mktemp("state") / "position"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
    )
    yield telemetry, collector
    telemetry.stop()
    collector.stop()


@pytest.fixture
def watched(gateway, telemetry_of_all):
    return Watched(gateway, *telemetry_of_all)


def test_a_request_is_the_root_span_and_the_services_parent(watched):
    got = watched.gateway.request("POST", "/orders/?token=c4n4ry", "User-Agent: c4n4ry", body=b"{}")
    span = watched.span(got.headers["traceresponse"])
    assert (span.name, span.kind, span.service) == ("POST /orders/", "SERVER", "nginx")
    assert (span.trace_id, span.parent_id) == (got.trace_id, "")
    (received,) = watched.gateway.reached()
    assert received.values("traceparent") == [f"00-{span.trace_id}-{span.span_id}-01"]
    assert span.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/orders/",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "server.port": watched.gateway.port,
        "url.scheme": "http",
    }
    assert not span.failed


def test_a_clients_trace_goes_on(watched):
    got = watched.gateway.request("GET", "/products/3", f"traceparent: 00-{TRACE}-{PARENT}-01")
    span = watched.span(got.headers["traceresponse"])
    assert (span.name, span.trace_id, span.parent_id) == ("GET /products/{product_id}", TRACE, PARENT)


def test_it_encloses_the_services_work(watched):
    times = {}

    def work(received):
        (traceparent,) = received.values("traceparent")
        times[traceparent] = (time.time_ns(), time.time_ns())
        return answer()

    watched.gateway.services["order"].reply = work
    contexts = [watched.gateway.request("GET", "/orders/1").headers["traceresponse"] for _ in range(50)]
    for context in contexts:
        span = watched.span(context)
        assert span.start_ns <= times[context][0] <= times[context][1] <= span.end_ns
        assert span.end_ns - span.start_ns < 2 * 10**9


@pytest.mark.parametrize(
    ("method", "target", "name", "status", "failed"),
    [
        ("GET", "/c4n4ry", "GET", 404, False),
        ("BREW", "/orders/", "HTTP /orders/", 200, False),
        ("DELETE", "/payments/1", "DELETE /payments/{payment_id}", 405, False),
        ("GET", "/orders", "GET /orders", 308, False),
        ("POST", "/healthz", "POST /healthz", 405, False),
        ("GET", "/users/me", "GET /users/me", 502, True),
    ],
)
def test_what_the_gateway_answers_itself_has_a_span_too(watched, method, target, name, status, failed):
    watched.gateway.services["user"].reply = lambda _: None
    got = watched.gateway.request(method, target)
    assert got.status == status
    span = watched.span(got.headers["traceresponse"])
    assert (span.name, span.attributes["http.response.status_code"], span.failed) == (name, status, failed)
    assert ("http.route" in span.attributes) == (" " in name)
    assert "c4n4ry" not in repr(span).lower()


def test_garbage_has_a_span_without_a_route(watched):
    got = watched.gateway.raw(b"c4n4ry\r\n\r\n")
    span = watched.span(got.headers["traceresponse"])
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert "network.protocol.version" not in span.attributes


def test_a_client_that_left_early_has_a_span(watched):
    watched.gateway.services["product"].reply = lambda _: time.sleep(0.4)
    trace = f"{time.time_ns():032x}"
    with watched.gateway.connect() as connection:
        connection.sendall(
            f"GET /products/ HTTP/1.1\r\nHost: x\r\ntraceparent: 00-{trace}-{PARENT}-01\r\n\r\n".encode()
        )
        eventually(watched.gateway.reached)
    (span,) = watched.collector.trace(trace, 1)
    assert (span.name, span.attributes["http.response.status_code"], span.failed) == ("GET /products/", 499, False)


def test_what_is_not_sampled_is_counted_and_not_sent(watched):
    def count():
        return watched.telemetry.metric("http_server_request_duration_seconds_count", http_route="/users/{user_id}")

    before = count()
    got = watched.gateway.request("GET", "/users/7", f"traceparent: 00-{TRACE}-{PARENT}-00")
    eventually(lambda: count() == before + 1)
    watched.span(watched.gateway.request("GET", "/users/8").headers["traceresponse"])  # the batch after it
    assert got.headers["traceresponse"].split("-")[2] not in [span.span_id for span in watched.collector.spans]


def test_no_line_of_nginx_is_malformed(watched):
    watched.span(watched.gateway.request("GET", "/orders/").headers["traceresponse"])
    assert watched.telemetry.metric("gateway_log_lines_total", outcome="malformed") == 0
    assert watched.telemetry.requests() == len(watched.gateway.log_lines())


def test_the_line_that_other_tests_use_is_nginxs(watched):
    got = watched.gateway.request("POST", "/orders/", body=b"{}")
    line = watched.gateway.log_line(trace_id=got.trace_id)
    assert {name: type(value) for name, value in line.items()} == {name: type(value) for name, value in LINE.items()}
