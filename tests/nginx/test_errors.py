"""The gateway's own errors are problem+json; those of the services pass through."""

import concurrent.futures
import contextlib
import re
import socket
import threading
import time

import pytest

from local import nginx
from tests.fixtures.files import allow_open_files
from tests.fixtures.gateway import answer, read_answer
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

H = b"Host: x\r\nConnection: close\r\n\r\n"

REFUSED = {
    "no such route": (404, b"GET /nowhere HTTP/1.1\r\n" + H),
    "no HTTP at all": (400, b"garbage\r\n\r\n"),
    "no Host": (400, b"GET /orders/ HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET /orders/ HTTP/1.1\r\nHost: y\r\n" + H),
    "a length that is no number": (400, b"POST /orders/ HTTP/1.1\r\nContent-Length: x\r\n" + H),
    "two lengths (smuggling)": (
        400,
        b"POST /orders/ HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" + H + b"0\r\n\r\n",
    ),
    "TRACE": (405, b"TRACE /orders/1 HTTP/1.1\r\n" + H),
    "a body too large, by its length": (413, b"POST /orders/ HTTP/1.1\r\nContent-Length: 65537\r\n" + H),
    "a body too large, in chunks": (
        413,
        b"POST /orders/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        + H
        + b"10001\r\n"
        + b"a" * 65537
        + b"\r\n0\r\n\r\n",
    ),
    "a byte that no URI has": (400, b"GET /orders/?x=\xff HTTP/1.1\r\n" + H),
    "a request line too long": (414, b"GET /orders/?" + b"a" * 8200 + b" HTTP/1.1\r\n" + H),
    "a header too long": (431, b"GET /orders/ HTTP/1.1\r\nX-Long: " + b"a" * 8200 + b"\r\n" + H),
    "headers too long together": (
        431,
        b"GET /orders/ HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 7000) for i in range(5)) + H,
    ),
    "an unknown transfer coding": (400, b"POST /orders/ HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + H),
    "an unknown version": (400, b"GET /orders/ HTTP/3.0\r\n" + H),
}


def assert_problem(got, status):
    assert got.status == status
    assert got.headers["Content-Type"] == "application/problem+json"
    problem = got.json()
    assert set(problem) == {"type", "title", "status", "detail", "trace_id"}
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    assert problem["title"] not in {"", "Error"}
    assert problem["detail"]
    assert problem["trace_id"] == got.trace_id
    assert got.headers["Cache-Control"] == "no-store"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert got.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert got.headers["Server"] == "nginx"
    assert got.headers.get_all("traceresponse") == [got.headers["traceresponse"]]


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED.values(), ids=REFUSED)
def test_what_the_gateway_refuses_is_a_problem_and_reaches_no_service(gateway, status, request_bytes):
    assert_problem(gateway.raw(request_bytes), status)
    assert gateway.reached() == []


_CODINGS = (b"x", b"gzip", b"identity", b"chunked, chunked", b"gzip, chunked", b"chunked;a=b", b"deflate", b"")
_VERSIONS = (
    b"HTTP/9.9",
    b"HTTP/2.0",
    b"HTTP/2",
    b"HTTP/3.0",
    b"HTTP/0.9",
    b"HTTP/1.",
    b"HTTP/11.1",
    b"HTTP/1.1000",
    b"X/1.1",
)
_METHODS = (b"BREW", b"post", b"P@ST", b"CONNECT", b"TRACE", b"PRI", b"_", b"A" * 300)
_HEADERS = (
    *(b"Transfer-Encoding: " + coding for coding in _CODINGS),
    *(
        b"Content-Length: " + length
        for length in (b"-1", b"1e3", b"0x1", b"99999999999999999999", b"65537", b"+1", b"1,1")
    ),
    *(
        b"Expect: x",
        b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Host: /",
        b"Host: a b",
        b"No-Colon",
        b" folded: x",
        b"\x00: x",
    ),
    *(b"A" * 8200 + b": x", b"Cookie: " + b"a" * 33_000, b"Range: bytes=9-1", b"If-Match: *", b"TE: trailers"),
)
WRONG = [
    *(b"POST /orders/ HTTP/1.1\r\n%s\r\n" % header + H + b"0\r\n\r\n" for header in _HEADERS),
    *(b"POST /orders/ HTTP/1.1\r\nIdempotency-Key: k\r\n%s\r\n" % header + H + b"0\r\n\r\n" for header in _HEADERS),
    *(b"POST /orders/ HTTP/1.0\r\n%s\r\n" % header + H for header in _HEADERS),
    *(b"POST /orders/ %s\r\n" % version + H for version in _VERSIONS),
    *(b"%s /orders/ HTTP/1.1\r\n" % method + H for method in _METHODS),
    *(
        b"POST %s HTTP/1.1\r\n" % target + H
        for target in (
            b"*",
            b"orders/",
            b"http://",
            b"//",
            b"/orders/\x7f",
            b"/orders/%",
            b"/orders/%00",
            b"/../orders/",
        )
    ),
    *(
        b"POST /orders/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + H + chunk
        for chunk in (b"x\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"1\r\nab\r\n", b"10001\r\n" + b"a" * 65537)
    ),
    *(
        b"POST /orders/ HTTP/1.1\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n" + H + chunk
        for chunk in (b"x\r\n", b"10001\r\n" + b"a" * 65537)
    ),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /orders/\r\n",
    b"\r\n\r\n\r\n",
]


def test_nothing_that_is_wrong_by_itself_counts_as_an_error_of_the_shop(gateway):
    """An anonymous client could spend the error budget with it, and wake somebody up."""
    for request in WRONG:
        with gateway.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    last = gateway.request("GET", "/nowhere")
    gateway.log_line(trace_id=last.trace_id)
    assert {line["status"] for line in gateway.log_lines() if line["status"] >= 500} == set()


@pytest.mark.parametrize(("status", "title"), [("501 Not Implemented", "x"), ("505 HTTP Version Not Supported", "y")])
def test_the_same_status_from_a_service_is_an_error_as_before(gateway, status, title):
    gateway.services["order"].reply = lambda _: answer(status, b'{"title":"%s"}' % title.encode())
    got = gateway.request("POST", "/orders/", body=b"{}")
    assert (got.status, got.json()) == (int(status[:3]), {"title": title})


@pytest.mark.parametrize("target", [b"/orders/", b"elsewhere.example:443"])
def test_connect_is_refused(gateway, target):
    got = gateway.raw(b"CONNECT %s HTTP/1.1\r\n" % target + H)
    assert_problem(got, got.status)
    assert got.status in {400, 405}  # which one depends on nginx's version
    assert gateway.reached() == []


def test_a_body_of_the_greatest_size_passes(gateway):
    assert gateway.request("POST", "/orders/", body=b"a" * 65536).status == 200
    assert len(gateway.services["order"].requests[0].body) == 65536


def test_an_error_of_head_has_no_body(gateway):
    got = gateway.request("HEAD", "/nowhere")
    assert (got.status, got.body) == (404, b"")


def test_the_error_of_a_service_passes_through_untouched(gateway):
    body = b'{"type":"about:blank","title":"x","status":503,"detail":"stock","trace_id":"t"}'
    gateway.services["order"].reply = lambda _: answer("503 Service Unavailable", body, "Retry-After: 7")
    got = gateway.request("POST", "/orders/", body=b"{}")
    assert (got.status, got.body, got.headers.get_all("Retry-After")) == (503, body, ["7"])
    gateway.services["order"].reply = lambda _: answer("404 Not Found", body, "X-Content-Type-Options: nosniff")
    got = gateway.request("GET", "/orders/1")
    assert (got.status, got.body, got.headers.get_all("X-Content-Type-Options")) == (404, body, ["nosniff"])


def test_a_service_that_is_down_is_a_503_with_retry_after(start_gateway):
    gateway = start_gateway(PRODUCT_UPSTREAM=f"127.0.0.1:{free_port()}")
    for _ in range(3):  # nginx does not count the only server out: each request tries
        got = gateway.request("GET", "/products/")
        assert_problem(got, 503)
        assert int(got.headers["Retry-After"]) > 0


def test_a_service_of_which_each_replica_is_down_is_a_503(start_gateway, monkeypatch):
    monkeypatch.setattr(nginx, "_VALUE", re.compile(".+"))  # or a setting could not name two
    gateway = start_gateway(ORDER_UPSTREAM=f"127.0.0.1:{free_port()}; server 127.0.0.1:{free_port()}")
    for headers in ([], ["Idempotency-Key: again-and-again"]):
        for _ in range(3):  # the first counts both out, so the others find none to ask
            got = gateway.request("POST", "/orders/", *headers, body=b"{}")
            assert_problem(got, 503)


@pytest.mark.parametrize("header", ["no colon here", "X-Long: " + "a" * 9000])
def test_a_service_that_sends_bad_headers_is_a_502(gateway, header):
    gateway.services["user"].reply = lambda _: answer("200 OK", b"{}", header)
    assert_problem(gateway.request("GET", "/users/me"), 502)


def test_a_service_that_is_too_slow_is_a_504_with_retry_after(start_gateway):
    gateway = start_gateway(PROXY_READ_TIMEOUT="300ms")
    gateway.services["order"].reply = lambda _: time.sleep(1.5)
    got = gateway.request("POST", "/orders/", body=b"{}")
    assert_problem(got, 504)
    assert int(got.headers["Retry-After"]) > 0
    assert len(gateway.reached()) == 1


def test_a_service_that_accepts_no_connection_is_a_503_after_two_seconds(start_gateway):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        gateway = start_gateway(ORDER_UPSTREAM=f"127.0.0.1:{full.getsockname()[1]}")
        waiting = []
        for _ in range(3):  # the queue is full when the system answers no more
            client = socket.socket()
            client.settimeout(0)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        started = time.monotonic()
        got = gateway.request("GET", "/orders/1")
        for client in waiting:
            client.close()
    assert_problem(got, 503)
    assert 1.9 < time.monotonic() - started < 4


@pytest.mark.parametrize("sent", [b"", b"GET /orders/ HT", b"POST /orders/ HTTP/1.1\r\nHost: x\r\nContent-Le"])
def test_a_client_that_is_slow_with_its_headers_is_cut_off(start_gateway, sent):
    gateway = start_gateway(CLIENT_TIMEOUT="300ms")
    with gateway.connect() as connection:
        connection.sendall(sent)
        started = time.monotonic()
        received = b"".join(iter(lambda: _receive(connection), b""))
    assert time.monotonic() - started < 5
    assert b"200" not in received
    assert gateway.reached() == []


def test_thousands_of_half_sent_heads_of_one_address_leave_the_gateway_to_the_others(start_gateway):
    allow_open_files(4096)
    gateway = start_gateway(CLIENT_TIMEOUT="60s")
    with contextlib.ExitStack() as slow:
        for _ in range(2500):  # more than two workers had room for with nginx's usual 1024 each
            slow.enter_context(gateway.connect()).sendall(b"GET /orders/ HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()
        asked = [("GET", "/healthz", b""), ("POST", "/orders/", b"{}")] * 10
        got = [gateway.request(method, target, body=body).status for method, target, body in asked]
        assert time.monotonic() - started < 5
    assert got == [200] * 20
    assert len(gateway.services["order"].requests) == 10
    assert "worker_connections are not enough" not in gateway.output()


def test_a_client_that_is_slow_with_its_body_is_cut_off(start_gateway):
    gateway = start_gateway(CLIENT_TIMEOUT="300ms")
    with gateway.connect() as connection:
        connection.sendall(b"POST /orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
        started = time.monotonic()
        b"".join(iter(lambda: _receive(connection), b""))
    assert time.monotonic() - started < 5
    assert gateway.reached() == []
    eventually(lambda: any(line["status"] == 408 for line in gateway.log_lines()))


def test_a_client_that_sends_its_headers_byte_by_byte_gets_no_more_time(start_gateway):
    gateway = start_gateway(CLIENT_TIMEOUT="300ms")
    with gateway.connect() as connection:
        connection.sendall(b"GET /orders/ HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.05)
        started = time.monotonic()
        assert eventually(lambda: _cut_off(connection))
    assert time.monotonic() - started < 5
    assert gateway.reached() == []


def _cut_off(connection):
    """Send one byte more, and wait a moment for the end of the connection."""
    try:
        connection.sendall(b"a")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _receive(connection):
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


def test_logins_beyond_the_rate_are_a_429_with_retry_after_and_nothing_else_is(start_gateway):
    gateway = start_gateway(LOGIN_RATE="1r/m")
    got = [gateway.request("POST", "/auth/login?x=1", body=b"{}") for _ in range(24)]
    assert [one.status for one in got] == [200] * 21 + [429] * 3  # one, and a burst of 20
    assert_problem(got[-1], 429)
    assert "logins" in got[-1].json()["detail"]
    assert int(got[-1].headers["Retry-After"]) > 0
    for method, target in [("GET", "/auth/login"), ("GET", "/auth/validate"), ("POST", "/orders/")]:
        assert {gateway.request(method, target).status for _ in range(25)} == {200}
    assert len(gateway.services["auth"].requests) == 21 + 50


def test_one_address_that_takes_all_it_can_leaves_the_service_to_the_others(start_gateway):
    """Many connections that pipeline and never read; tests/e2e has them against the whole shop."""
    gateway = start_gateway(CLIENT_CONNECTIONS="8")
    order, at_once, most, lock = gateway.services["order"], [0], [0], threading.Lock()

    def reply(_received):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02)  # the service's work
        with lock:
            at_once[0] -= 1
        return answer(body=b"x" * 4000)

    order.reply = reply
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            greedy = stack.enter_context(socket.socket())
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            greedy.bind(("127.0.0.2", 0))
            greedy.connect(("127.0.0.1", gateway.port))
            greedy.settimeout(0)
            greedy.send(b"POST /orders/ HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}" * 100)
        eventually(lambda: most[0] >= 8)
        honest = [gateway.request("POST", "/orders/", body=b"{}").status for _ in range(30)]
    assert honest == [200] * 30
    assert most[0] <= 8 + 1  # the honest client's one
    assert any(line["status"] == 429 for line in gateway.log_lines())


@pytest.mark.parametrize("key", [(), ("Idempotency-Key: k",)])
def test_one_request_more_than_an_address_may_have_is_a_429_that_no_service_saw(start_gateway, key):
    gateway = start_gateway(CLIENT_CONNECTIONS="2")
    released = threading.Event()
    gateway.services["order"].reply = lambda _: released.wait(10) and answer()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        held = [pool.submit(gateway.request, "POST", "/orders/", *key, body=b"{}") for _ in range(2)]
        eventually(lambda: len(gateway.reached()) == 2)
        got = gateway.request("POST", "/orders/", *key, body=b"{}")
        free = [gateway.request("GET", target).status for target in ("/healthz", "/", "/nowhere")]
        released.set()
        assert [one.result().status for one in held] == [200, 200]
    assert_problem(got, 429)
    assert "in progress" in got.json()["detail"]
    assert int(got.headers["Retry-After"]) > 0
    assert free == [200, 200, 404]
    assert len(gateway.reached()) == 2
    assert gateway.request("POST", "/orders/", *key, body=b"{}").status == 200


def test_a_client_cannot_escape_the_login_limit_with_a_forwarding_header(start_gateway):
    gateway = start_gateway(LOGIN_RATE="1r/m")
    statuses = [
        gateway.request("POST", "/auth/login", f"X-Forwarded-For: 10.0.0.{i}", body=b"{}").status for i in range(22)
    ]
    assert statuses[-1] == 429


def test_an_answer_after_an_error_on_the_same_connection_is_the_right_one(gateway):
    with gateway.connect() as connection:
        for target, status in [("/nowhere", 404), ("/orders/1", 200), ("/nowhere", 404)]:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert read_answer(connection).status == status
