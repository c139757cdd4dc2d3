"""The access log: valid JSON, exactly these fields, and nothing that a client chose."""

import contextlib
import datetime as dt
import re
import socket
import time

import pytest

from local.nginx import SOURCE
from tests.fixtures.gateway import answer, read_answer
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

FIELDS = {
    "timestamp": str,
    "level": str,
    "service": str,
    "event": str,
    "method": str,
    "http_route": str,
    "status": int,
    "duration_s": float,
    "bytes": int,
    "scheme": str,
    "protocol": str,
    "server_name": str,
    "server_port": int,
    "upstream": str,
    "upstream_duration_s": float | None,
    "upstream_tries_s": str,
    "trace_id": str,
    "span_id": str,
    "parent_span_id": str,
    "trace_flags": str,
}

CANARY = "c4n4ry-s3cr3t"


def test_a_line_has_exactly_the_documented_fields(gateway):
    line = gateway.log_line(trace_id=gateway.request("GET", "/orders/17?x=1").trace_id)
    assert list(line) == list(FIELDS)
    assert {name for name, type_ in FIELDS.items() if not isinstance(line[name], type_)} == set()
    assert (line["level"], line["service"], line["event"]) == ("info", "nginx", "request.completed")
    assert (line["method"], line["http_route"], line["status"]) == ("GET", "/orders/{order_id}", 200)
    assert (line["scheme"], line["protocol"]) == ("http", "1.1")
    assert (line["server_name"], line["server_port"]) == ("localhost", gateway.port)
    assert line["upstream"] == "order-service"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(line["timestamp"])
    assert abs(age.total_seconds()) < 30


def test_the_readme_documents_these_fields():
    readme = (SOURCE / "README.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", readme.split("## Access log")[1], re.MULTILINE) == list(FIELDS)


@pytest.mark.parametrize(
    ("method", "target", "route", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/products/", "/products/", 200),
        ("GET", "/users/me?a=b", "/users/me", 200),
        ("GET", "/payments/5", "/payments/{payment_id}", 200),
        ("PUT", "/payments/5", "/payments/{payment_id}", 405),
        ("GET", "/orders", "/orders", 308),
        ("GET", f"/orders/{CANARY}", "unmatched", 404),
        ("GET", f"/{CANARY}", "unmatched", 404),
    ],
)
def test_the_route_is_a_template_and_a_constant_for_what_is_no_route(gateway, method, target, route, status):
    line = gateway.log_line(trace_id=gateway.request(method, target).trace_id)
    assert (line["method"], line["http_route"], line["status"]) == (method, route, status)
    if status != 200 or route == "/":
        assert (line["upstream"], line["upstream_duration_s"]) == ("", None)


def test_a_method_of_the_clients_own_is_other(gateway):
    got = gateway.request(CANARY.upper().replace("4", "A").replace("3", "E"), "/orders/")
    assert gateway.log_line(trace_id=got.trace_id)["method"] == "_OTHER"


@pytest.mark.parametrize(("spoken", "logged"), [("1.0", "1.0"), ("1.1", "1.1"), ("1.7", ""), ("7.5", "")])
def test_the_version_of_http_is_a_known_one_or_empty(gateway, spoken, logged):
    got = gateway.raw(f"GET /orders/?{spoken} HTTP/{spoken}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert gateway.log_line(trace_id=got.trace_id)["protocol"] == logged


def test_durations_are_seconds_and_an_error_says_so(start_gateway):
    gateway = start_gateway(PROXY_READ_TIMEOUT="200ms")
    gateway.services["order"].reply = lambda _: time.sleep(1)
    line = gateway.log_line(trace_id=gateway.request("GET", "/orders/").trace_id)
    assert (line["level"], line["status"], line["upstream"]) == ("error", 504, "order-service")
    assert 0.15 < line["upstream_duration_s"] < 0.9
    assert abs(line["duration_s"] - line["upstream_duration_s"]) < 0.1  # two clocks, each cut to milliseconds


def test_a_client_that_is_slow_makes_the_whole_slow_and_not_the_service(gateway):
    with gateway.connect() as connection:
        connection.sendall(b"POST /orders/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.6)  # the client's slowness is what is under test
        connection.sendall(b"}")
        got = read_answer(connection)
    line = gateway.log_line(trace_id=got.trace_id)
    assert line["duration_s"] >= 0.5
    assert line["upstream_duration_s"] < 0.3
    assert float(line["upstream_tries_s"]) == line["upstream_duration_s"]


def test_a_client_that_reads_slowly_does_not_make_the_service_slow(gateway):
    gateway.services["order"].reply = lambda _: answer(body=b"x" * 100_000)
    with gateway.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.sendall(b"GET /orders/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(0.6)
        got = read_answer(connection)
    line = gateway.log_line(trace_id=got.trace_id)
    assert line["upstream_duration_s"] < 0.3


def test_each_try_has_its_time(start_gateway):
    gateway = start_gateway(ORDER_UPSTREAM=f"127.0.0.1:{free_port()}")
    line = gateway.log_line(trace_id=gateway.request("GET", "/orders/").trace_id)
    assert re.fullmatch(r"\d\.\d{3} : \d\.\d{3}", line["upstream_tries_s"])
    refused = gateway.log_line(trace_id=gateway.request("GET", "/nowhere").trace_id)
    assert refused["upstream_tries_s"] == ""


def test_good_health_is_not_logged(gateway):
    good, bad = gateway.request("GET", "/healthz"), gateway.request("POST", "/healthz")
    gateway.log_line(trace_id=bad.trace_id)
    assert good.trace_id not in gateway.output()


def test_nothing_that_a_client_sends_reaches_any_log(start_gateway):
    no_socket = "unix:/nowhere"  # nginx finds this critical, and would say so with the request line
    gateway = start_gateway(
        LOGIN_RATE="1r/m",
        PROXY_READ_TIMEOUT="200ms",
        CLIENT_TIMEOUT="300ms",
        PAYMENT_UPSTREAM=no_socket,
    )
    gateway.services["user"].reply = lambda _: None
    gateway.services["product"].reply = lambda _: time.sleep(0.6)
    headers = (
        f"Authorization: Bearer {CANARY}",
        f"Cookie: {CANARY}",
        f"User-Agent: {CANARY}",
        f"Referer: http://{CANARY}/",
        f"X-Forwarded-For: {CANARY}",
        f"traceparent: {CANARY}",
        f"tracestate: a={CANARY}",
    )
    secret = CANARY.encode()
    statuses = [
        gateway.request("GET", f"/orders/?q={CANARY}", *headers).status,
        gateway.request("GET", f"/{CANARY}?q={CANARY}", *headers).status,
        gateway.request("GET", f"/orders?q={CANARY}", *headers).status,
        gateway.request("POST", f"/payments/1?q={CANARY}", *headers, body=secret).status,
        gateway.request("POST", f"/orders/?q={CANARY}", *headers, body=secret * 6000).status,
        gateway.request("GET", f"/orders/?q={CANARY * 1000}", *headers).status,
        gateway.request("GET", f"/orders/?q={CANARY}", f"X-Long: {CANARY * 1000}").status,
        gateway.request("GET", f"/users/me?q={CANARY}", *headers).status,
        gateway.request("GET", f"/products/?q={CANARY}", *headers).status,
        gateway.request("GET", f"/payments/1?q={CANARY}", *headers).status,
        gateway.request("TRACE", f"/orders/?q={CANARY}", *headers).status,
        gateway.raw(b"GET /orders/?q=%s HTTP/1.1\r\nHost: %s\r\nHost: y\r\n\r\n" % (secret, secret)).status,
        gateway.raw(b"%s %s %s\r\n\r\n" % (secret, secret, secret)).status,
        gateway.raw(b"GET /%s%%zz HTTP/1.1\r\nHost: x\r\n\r\n" % secret).status,
        gateway.raw(b"POST /orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n" % secret).status,
        *(gateway.request("POST", f"/auth/login?q={CANARY}", *headers, body=secret).status for _ in range(22)),
    ]
    assert set(statuses) == {200, 308, 400, 404, 405, 413, 414, 429, 431, 502, 503, 504}
    for unfinished in (b"GET /products/?q=%s HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /orders/?q=%s HTTP/1.1\r\nHost:"):
        with gateway.connect() as connection:  # 499, and a client that times out
            connection.sendall(unfinished % secret)
            if unfinished.endswith(b"Host:"):
                with contextlib.suppress(ConnectionResetError):
                    connection.recv(1)
    eventually(lambda: any(line["status"] == 499 for line in gateway.log_lines()))
    eventually(lambda: len(gateway.log_lines()) >= len(statuses) + 1)
    assert CANARY not in gateway.output().lower()
    assert "127.0.0.1" not in gateway.output()
