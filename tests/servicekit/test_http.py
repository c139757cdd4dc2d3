import concurrent.futures
import contextlib
import itertools
import json
import socket
import threading
import time

import pytest
from opentelemetry import baggage, context, propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servicekit.calls.client import ServiceClient
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer
from servicekit.web.errors import DependencyUnavailable
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

RETRIES = "http_client_retries_total"
CALLS = "http_client_request_duration_seconds_count"


def answer(status=200, body=b"{}", headers=""):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n{headers}\r\n"
    return head.encode() + body


class RawPeer:
    """A peer that does per request what it is told: bytes are sent, `CLOSE` closes, `HANG` says nothing."""

    CLOSE, HANG, CLOSE_AFTER, SLOW = object(), object(), object(), object()

    def __init__(self, *script):
        self.script = itertools.chain(script, itertools.repeat(answer()))
        self.connections = 0
        self.requests = []
        self.under_way = self.most_under_way = 0
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.root = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._run(self._accept)

    def _run(self, work, *args):
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self):
        while True:
            connection, _ = self._listener.accept()
            if self.released.is_set():
                return connection.close()
            self.connections += 1
            self._run(self._serve, connection)

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:  # the caller may give up
            while head := b"".join(iter(reader.readline, b"\r\n")) if reader.peek(1) else b"":
                length = next(
                    (int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0
                )
                reader.read(length)
                with self._lock:
                    self.requests.append(head.decode())
                    step = next(self.script)
                if step is self.CLOSE:
                    return
                if step is self.HANG:
                    self.released.wait(10)
                    return
                if step is self.SLOW:
                    self._slowly()
                connection.sendall(step if isinstance(step, bytes) else answer())
                if step is self.CLOSE_AFTER:
                    return

    def _slowly(self):
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        self.released.wait(0.01)
        with self._lock:
            self.under_way -= 1

    def stop(self):
        self.released.set()
        host, port = self._listener.getsockname()
        socket.create_connection((host, port)).close()  # wakes accept
        self._threads[0].join(5)
        self._listener.close()


@pytest.fixture
def raw_peer():
    peers = []

    def start(*script):
        peers.append(RawPeer(*script))
        return peers[-1]

    yield start
    for peer in peers:
        peer.stop()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def connect(metrics):
    clients = []

    def client(root, **options):
        clients.append(ServiceClient("things", root, metrics, Tracer(), **{"timeout_seconds": 5.0, **options}))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


def _value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, {"peer_service": "things", **labels})


def _failures(metrics, method):
    return _value(
        metrics,
        CALLS,
        http_request_method=method,
        http_route="/things/{thing_id}" if method == "GET" else "/things/",
        http_response_status_code="error",
    )


def _get(client):
    return client.get("/things/{thing_id}", thing_id=7)


def test_an_answer_below_500_is_returned_with_its_body(connect, raw_peer):
    peer = raw_peer(answer(200, b'{"a": 1}'), answer(404, b'{"b": 2}'), answer(304, b""))
    client = connect(peer.root)
    replies = [_get(client) for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(200, {"a": 1}), (404, {"b": 2}), (304, None)]
    assert peer.requests[0].startswith("GET /things/7 HTTP/1.1")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_an_unavailable_dependency_and_not_asked_again(connect, raw_peer, metrics, status):
    peer = raw_peer(answer(status))
    with pytest.raises(DependencyUnavailable, match="things"):
        _get(connect(peer.root))
    assert len(peer.requests) == 1
    assert (
        _value(
            metrics,
            CALLS,
            http_request_method="GET",
            http_route="/things/{thing_id}",
            http_response_status_code=str(status),
        )
        == 1
    )


@pytest.mark.parametrize("body", [b"<html>", b"{", b'{"a": NaN}', b"\xff"])
def test_an_answer_that_is_no_json_is_an_unavailable_dependency(connect, raw_peer, body):
    peer = raw_peer(answer(200, body))
    with pytest.raises(DependencyUnavailable):
        _get(connect(peer.root))
    assert len(peer.requests) == 1


def test_a_redirect_is_not_followed(connect, raw_peer):
    peer = raw_peer(answer(302, headers="Location: /elsewhere\r\n"))
    assert _get(connect(peer.root)).status == 302
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "call",
    [
        _get,
        lambda client: client.post("/things/", {}),
        lambda client: client.post("/things/", {}, idempotency_key="k", retry=True),
    ],
    ids=["GET", "POST", "POST with retry"],
)
def test_a_slow_peer_is_given_up_after_the_timeout_and_not_asked_again(connect, raw_peer, metrics, call):
    """A second try would make a slow service slower and the caller wait twice."""
    peer = raw_peer(RawPeer.HANG)
    started = time.monotonic()
    with pytest.raises(DependencyUnavailable):
        call(connect(peer.root, timeout_seconds=0.2))
    assert 0.15 < time.monotonic() - started < 1
    assert len(peer.requests) == 1
    assert _value(metrics, RETRIES) == 0


def test_an_answer_that_stops_half_way_is_given_up_after_the_timeout(connect, raw_peer):
    peer = raw_peer(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{", RawPeer.HANG)
    with pytest.raises(DependencyUnavailable):
        _get(connect(peer.root, timeout_seconds=0.5))
    assert len(peer.requests) == 1


def test_a_refused_connection_is_tried_once_more_and_counted(connect, metrics):
    with pytest.raises(DependencyUnavailable):
        _get(connect(f"http://127.0.0.1:{free_port()}"))
    assert _value(metrics, RETRIES) == 1
    assert _failures(metrics, "GET") == 1


def test_a_get_whose_connection_breaks_is_sent_again_once(connect, raw_peer, metrics):
    peer = raw_peer(RawPeer.CLOSE)
    assert _get(connect(peer.root)).status == 200
    assert len(peer.requests) == 2
    assert _value(metrics, RETRIES) == 1


def test_there_is_no_third_try(connect, raw_peer, metrics):
    peer = raw_peer(RawPeer.CLOSE, RawPeer.CLOSE)
    with pytest.raises(DependencyUnavailable):
        _get(connect(peer.root))
    assert len(peer.requests) == 2
    assert _value(metrics, RETRIES) == 1


def test_a_post_is_not_sent_again(connect, raw_peer, metrics):
    """The other side may have done the work."""
    peer = raw_peer(RawPeer.CLOSE)
    with pytest.raises(DependencyUnavailable):
        connect(peer.root).post("/things/", {"a": 1})
    assert len(peer.requests) == 1
    assert _value(metrics, RETRIES) == 0
    assert _failures(metrics, "POST") == 1


def test_a_post_that_is_safe_to_repeat_is_sent_again_with_its_key(connect, raw_peer, metrics):
    peer = raw_peer(RawPeer.CLOSE, answer(201))
    reply = connect(peer.root).post("/things/", {"a": 1}, idempotency_key="order-7", retry=True)
    assert reply.status == 201
    assert [request.count("Idempotency-Key: order-7") for request in peer.requests] == [1, 1]
    assert _value(metrics, RETRIES) == 1


def test_a_connection_that_the_peer_closed_while_idle_costs_a_get_nothing(connect, raw_peer):
    peer = raw_peer(RawPeer.CLOSE_AFTER)
    client = connect(peer.root)
    assert _get(client).status == _get(client).status == 200
    assert peer.connections == 2


def test_one_connection_serves_many_calls(connect, raw_peer):
    peer = raw_peer()
    client = connect(peer.root)
    for _ in range(20):
        _get(client)
        client.post("/things/", {})
    assert len(peer.requests) == 40
    assert peer.connections == 1


def test_no_more_calls_are_under_way_than_allowed(connect, raw_peer, monkeypatch):
    monkeypatch.setattr("servicekit.calls.client._POOL_WAIT_SECONDS", 10)
    peer = raw_peer(*[RawPeer.SLOW] * 200)
    client = connect(peer.root, connections=3, timeout_seconds=10.0)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: _get(client), range(200)))
    assert {reply.status for reply in replies} == {200}
    assert peer.most_under_way == 3
    assert peer.connections <= 6  # one that has just been used is not always back when the next call looks for it


def test_a_call_that_finds_no_free_connection_is_not_tried_again(connect, raw_peer, metrics):
    peer = raw_peer(RawPeer.HANG)
    client = connect(peer.root, connections=1, timeout_seconds=2.0)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(_get, client)
        eventually(lambda: peer.requests)
        with pytest.raises(DependencyUnavailable) as error:
            _get(client)
        peer.released.set()
        held.exception()
    assert type(error.value.__cause__).__name__ == "NoFreeConnectionError"
    assert len(peer.requests) <= 2  # the one that was held is sent again when its connection breaks


def test_a_peer_that_lets_nobody_in_is_tried_once_more_and_hangs(connect, metrics):
    """Nothing was sent: that is not the silence of a peer that is at work, but it takes as long."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # the queue is full
            client = connect(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_seconds=0.2)
            for _ in range(3):
                with pytest.raises(DependencyUnavailable) as error:
                    _get(client)
            assert type(error.value.__cause__).__name__ == "ConnectTimeoutError"
            with pytest.raises(DependencyUnavailable):
                _get(client)  # not even tried: see the test of a peer that hangs
    assert _value(metrics, RETRIES) == 3


def test_a_path_of_the_base_url_comes_first(connect, raw_peer):
    peer = raw_peer()
    _get(connect(f"{peer.root}/shop/"))
    assert peer.requests[0].startswith("GET /shop/things/7 HTTP/1.1")


def test_the_context_is_handed_on_as_the_propagators_say(connect, raw_peer):
    peer = raw_peer()
    client = connect(peer.root)
    standard = propagate.get_global_textmap()
    token = context.attach(baggage.set_baggage("tenant", "blue whale"))
    try:
        _get(client)
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        _get(client)
    finally:
        propagate.set_global_textmap(standard)
        context.detach(token)
    assert ["baggage: tenant=blue+whale" in request.lower() for request in peer.requests] == [True, False]


def test_a_caller_without_a_connection_waits_for_one_no_longer_than_the_timeout(connect, raw_peer):
    peer = raw_peer(RawPeer.HANG, RawPeer.HANG)
    client = connect(peer.root, connections=1, timeout_seconds=0.3)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(_get, client) for _ in range(4)]
    assert all(isinstance(outcome.exception(), DependencyUnavailable) for outcome in outcomes)
    assert time.monotonic() - started < 2


def test_what_is_sent_is_json(connect, peer):
    server = peer()
    server.expect_request("/things/").respond_with_json({})
    connect(server.root).post("/things/", {"a": [1, "ä"]})
    request, _ = server.log[0]
    assert request.headers["Content-Type"] == request.headers["Accept"] == "application/json"
    assert json.loads(request.data) == {"a": [1, "ä"]}


def test_a_peer_that_hangs_is_looked_at_once_a_second_and_taken_back_when_it_answers(connect, raw_peer):
    peer = raw_peer(*[RawPeer.HANG] * 4)
    client = connect(peer.root, timeout_seconds=0.3)

    def fails():
        with pytest.raises(DependencyUnavailable):
            _get(client)

    for _ in range(3):
        fails()
    started = time.monotonic()
    for _ in range(20):
        fails()
    assert time.monotonic() - started < 0.9  # nobody waits 20 times 0.3 s for what has just hung three times
    assert len(peer.requests) == 3
    time.sleep(1)  # the pause itself is what is tested
    fails()
    assert len(peer.requests) == 4
    time.sleep(1)
    assert _get(client).status == 200
    assert _get(client).status == 200


def test_quick_failures_open_no_breaker(connect, raw_peer):
    peer = raw_peer(*[answer(500)] * 10)
    client = connect(peer.root)
    for _ in range(10):
        with pytest.raises(DependencyUnavailable):
            _get(client)
    assert _get(client).status == 200
