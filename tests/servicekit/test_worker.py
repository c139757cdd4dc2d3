"""Clients that are slow, silent, hostile or broken: they get their answer, and cost nobody else theirs."""

import contextlib
import functools
import json
import random
import re
import socket
import time

import psutil
import pytest
import requests

from tests.fixtures.files import allow_open_files
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually, quickest
from tests.servicekit.conftest import SAMPLE, Server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
GET = b"GET /notes/7 HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /notes/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NOTE = b'{"title": "a"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    server = Server(SAMPLE, tmp_path_factory.mktemp("worker") / "log", PORT=str(port), LOG_LEVEL="debug")
    server.client = Client(f"http://127.0.0.1:{port}")
    eventually(server.is_up, 20)
    yield server
    server.client.session.close()
    server.stop()


@pytest.fixture
def connect(server):
    """Open connections, which the test leaves open: `connect(b"GET ", 300)` sends the same on each."""
    opened = []

    def run(sent=b"", count=1, *, to=server, receive_buffer=None):
        for _ in range(count):
            one = socket.socket()
            opened.append(one)
            one.settimeout(20)
            if receive_buffer is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.connect(to.address)
            one.sendall(sent)
        return opened[-count:]

    yield run
    for one in opened:
        one.close()


class Got:
    """An answer, read from a connection until the server closes it."""

    def __init__(self, connection):
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        self.head, _, self.body = received.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1]) if self.head else None

    def header(self, name):
        (value,) = re.findall(rb"(?im)^%s: ([^\r]*)" % name, self.head)
        return value.decode()


def _assert_problem(got, status):
    assert got.status == status, got.head
    assert got.header(b"Content-Type") == "application/problem+json"
    assert int(got.header(b"Content-Length")) == len(got.body)
    problem = json.loads(got.body)
    assert (problem["status"], problem["type"][:19]) == (status, "urn:sample:problem:")
    assert problem["title"]
    assert problem["detail"]
    assert problem["trace_id"] == got.header(b"traceresponse").split("-")[1]
    assert got.header(b"Connection") == "close"
    return problem["trace_id"]


def _answered(server, method, path, status):
    client = Client(server.client.root)
    answer = client(method, path, json={"title": "a"} if method == "POST" else None)
    client.session.close()
    assert answer.status_code == status
    return answer


def _well(server, seconds=3.0, tries=1):
    """It answers its probe on a new connection, and does its work, before a health check would give up (3 s)."""
    for method, path, status in (("GET", "/healthz", 200), ("POST", "/notes/", 201)):
        ask = functools.partial(_answered, server, method, path, status)
        assert quickest(ask, tries, enough=seconds) < seconds, f"{method} {path}"


REFUSED = {
    "a control character in a value": (400, GET + PARENT + b"X-Token: can\x01ary\r\n\r\n"),
    "a NUL in a value": (400, GET + PARENT + b"X-Token: can\x00ary\r\n\r\n"),
    "a control character in a name": (400, GET + PARENT + b"can\x7fary: 1\r\n\r\n"),
    "a blank in a name": (400, GET + PARENT + b"canary header: 1\r\n\r\n"),
    "a header without a colon": (400, GET + PARENT + b"canary\r\n\r\n"),
    "a header without a name": (400, GET + PARENT + b": canary\r\n\r\n"),
    "a folded header": (400, GET + PARENT + b"A: b\r\n canary\r\n\r\n"),
    "a line that ends with a line feed alone": (400, GET + PARENT + b"A: canary\nB: c\r\n\r\n"),
    "two content types": (400, POST + PARENT + b"Content-Type: canary/x\r\n\r\n"),
    "two hosts": (400, GET + PARENT + b"Host: canary\r\n\r\n"),
    "two lengths": (400, POST + PARENT + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1"),
    "a length and chunks": (400, POST + PARENT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a length that is no number": (400, POST + PARENT + b"Content-Length: canary\r\n\r\n"),
    "a negative length": (400, POST + PARENT + b"Content-Length: -1\r\n\r\n"),
    "a length of 5000 digits": (400, POST + PARENT + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    "a length far beyond the limit": (413, POST + PARENT + b"Connection: close\r\nContent-Length: 9999999999\r\n\r\n"),
    "an unknown transfer coding": (400, POST + PARENT + b"Transfer-Encoding: canary\r\n\r\n"),
    "a transfer coding without an end": (400, POST + PARENT + b"Transfer-Encoding: gzip\r\n\r\n"),
    "a chunk size that is no number": (400, POST + PARENT + b"Transfer-Encoding: chunked\r\n\r\ncanary\r\n"),
    "a chunk longer than it says": (400, POST + PARENT + b"Transfer-Encoding: chunked\r\n\r\n3\r\ncanary\r\n0\r\n\r\n"),
    "a length in a trailer": (
        400,
        POST + PARENT + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
    ),
    "chunks with more framing than content": (
        413,
        POST + PARENT + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"x" * 8000 + b"\r\n1\r\n") * 30,
    ),
    "an expectation that nobody knows": (417, POST + PARENT + b"Expect: canary\r\nContent-Length: 0\r\n\r\n"),
    "a header too long": (431, GET + PARENT + b"X-Token: canary" + b"x" * 20_000 + b"\r\n\r\n"),
    "headers too long together": (431, GET + PARENT + b"X-Token: canary-canary\r\n" * 6_500 + b"\r\n"),
    "headers without an end": (431, GET + PARENT + b"X-Token: canary-canary\r\n" * 6_500),
}
NO_TRACE = {
    "no request line": (400, b"canary\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03canary\r\n\r\n"),
    "a line feed alone": (400, b"GET /canary HTTP/1.1\nHost: localhost\n\n"),
    "a control character in the target": (400, b"GET /can\x01ary HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "bytes that no target has": (400, b"GET /canary\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "an unknown version": (400, b"GET /canary HTTP/9.9\r\n\r\n"),
    "a method in lower case": (400, b"canary / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a long method": (400, b"CANARY" * 6 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "an asterisk for GET": (400, b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a request line too long": (414, b"GET /canary" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "two trace contexts": (400, GET + PARENT + PARENT + b"A: \x01\r\n\r\n"),
    "a broken trace context": (400, GET + b"traceparent: 00-canary-01\r\nA: \x01\r\n\r\n"),
    "a trace context in the body": (400, POST + b"Transfer-Encoding: chunked\r\n\r\ncanary\r\n" + PARENT + b"\r\n"),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_request_gets_a_problem_in_the_callers_trace(server, connect, status, sent):
    (connection,) = connect(sent)
    assert _assert_problem(Got(connection), status) == TRACE
    assert "canary" not in server.output.lower()


@pytest.mark.parametrize(("status", "sent"), NO_TRACE.values(), ids=NO_TRACE)
def test_without_a_trace_context_it_gets_a_trace_of_its_own(server, connect, status, sent):
    (connection,) = connect(sent)
    got = Got(connection)
    assert _assert_problem(got, status) not in {TRACE, "0" * 32}
    assert b"canary" not in got.body.lower()
    assert "canary" not in server.output.lower()


def test_what_is_refused_is_logged_and_counted(server, connect):
    def count():
        labels = {"http_request_method": "GET", "http_route": "unmatched", "http_response_status_code": "400"}
        return server.client.metric("http_server_request_duration_seconds_count", **labels)

    before = count()
    (connection,) = connect(GET + b"A: \x01\r\n\r\n")
    trace_id = _assert_problem(Got(connection), 400)
    (line,) = eventually(lambda: [event for event in server.events if event.get("trace_id") == trace_id])
    assert {name: line[name] for name in ("event", "level", "method", "http_route", "status")} == {
        "event": "request.completed",
        "level": "info",
        "method": "GET",
        "http_route": "unmatched",
        "status": 400,
    }
    assert count() == before + 1


def test_a_missing_slash_is_no_route_and_options_has_no_body(server):
    answer = server.client.get("/notes")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    answer = server.client("OPTIONS", "/notes/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert "Content-Type" not in answer.headers


HALF = {
    "half a request line": b"GET /no",
    "half the headers": GET + b"X-A: b",
    "half a body": POST + b"Content-Length: 100\r\n\r\n{",
    "chunks without an end": CHUNKED + b"5\r\n{    \r\n",
    "nothing": b"",
    "nothing of a body that is too large": POST + b"Content-Length: 70000\r\n\r\n",
    "too large a body in chunks without an end": CHUNKED + b"11170\r\n" + b" " * 69_000,
    "no HTTP, and open": b"\x16\x03\x01\r\n\r\n",
}


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
def test_three_hundred_that_do_not_go_on_hold_nobody_up(server, connect, sent):
    connect(sent, 300)
    for _ in range(5):
        # Up to 20 MB have to be read first. Compose calls a service ill after three late answers in a row, too.
        _well(server, tries=3)


FIELDS = b"A:\r\n" * 5900
DRIPPING = {
    "a head": GET + FIELDS,
    "a body": POST + FIELDS + b"Content-Length: 60000\r\n\r\n",
    "a chunk": POST + FIELDS + b"Transfer-Encoding: chunked\r\n\r\nea60\r\n",
    "a chunk after many": CHUNKED + b"1\r\n \r\n" * 2_000 + b"ea60\r\n",
}


@pytest.mark.parametrize("sent", DRIPPING.values(), ids=DRIPPING)
def test_two_hundred_that_send_byte_by_byte_hold_nobody_up(server, connect, sent):
    dripping = connect(sent, 200)
    for connection in dripping:
        connection.send(b" ")
    # What they sent at first is parsed once, and its chunks are searched once for the last.
    eventually(lambda: requests.get(f"{server.client.root}/healthz", timeout=60).elapsed.total_seconds() < 0.2, 60)
    for _ in range(5):
        for connection in dripping:
            with contextlib.suppress(OSError):  # its time may be over
                connection.send(b" ")
        _well(server)


@pytest.mark.slow
def test_what_does_not_go_on_ends_in_time_and_so_does_what_goes_on_too_slowly(server, connect):
    started = time.monotonic()
    half = [connection for name, sent in HALF.items() if name != "nothing" for connection in connect(sent, 20)]
    silent, dripping = connect(b"", 20), connect(GET + b"X-A: ", 20)

    def all_ended():
        for connection in dripping:
            with contextlib.suppress(OSError):
                connection.send(b"b")
        return all(_ended(connection) for connection in half + silent + dripping)

    cut = server.client.metric("http_server_connections_cut_total", reason="silent")
    eventually(all_ended, 20, 0.5)
    assert time.monotonic() - started > 9
    assert server.client.metric("http_server_connections_cut_total", reason="silent") == cut + 20
    late = {"http_route": "unmatched", "http_response_status_code": "408"}
    for method in ("GET", "POST"):
        assert server.client.metric(
            "http_server_request_duration_seconds_count", http_request_method=method, **late
        ) >= (40 if method == "POST" else 20)


def _ended(connection):
    connection.settimeout(0)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def test_answers_that_nobody_reads_hold_nobody_up(server, connect):
    def cut():
        return server.client.metric("http_server_connections_cut_total", reason="unread")

    before = cut()
    connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, 60, receive_buffer=4096)
    eventually(lambda: cut() >= before + 20, 40)  # making so many large answers takes a while where others work too
    _well(server)
    eventually(lambda: cut() >= before + 60, 60)
    assert not [event for event in server.events if event["level"] == "error"]


def test_an_answer_that_is_read_slowly_comes_whole(connect):
    request = b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    (connection,) = connect(request, receive_buffer=65536)
    assert len(Got(connection).body) > 4_000_000


def test_when_there_are_too_many_those_that_wait_longest_go(start, connect):
    allow_open_files(4096)
    server = start(SAMPLE, THREADS="1", QUEUE_LENGTH="0")
    eventually(server.is_up, 20)
    first = connect(GET, 50, to=server)
    connect(GET, 1250, to=server)
    _well(server)
    assert all(_ended(connection) for connection in first)
    assert server.client.metric("http_server_connections_cut_total", reason="crowded") >= 50


def test_who_leaves_just_when_it_has_to_go_takes_nobody_else_with_it(start, connect):
    allow_open_files(4096)
    server = start(SAMPLE, THREADS="1", QUEUE_LENGTH="0")
    eventually(server.is_up, 20)
    waiting = connect(GET, 1200, to=server)
    eventually(lambda: server.client.metric("http_server_connections_cut_total", reason="crowded") >= 1, 20)
    (worker,) = psutil.Process(server.process.pid).children()
    worker.suspend()  # so that it finds all that follows in one turn: first who needs room, then who leaves
    (last,) = connect(GET + b"Connection: close\r\n\r\n", to=server)
    for connection in waiting:
        connection.close()
    worker.resume()
    assert Got(last).status == 200
    assert worker.is_running()
    assert not [event for event in server.events if event["level"] in {"error", "critical"}]


@pytest.mark.parametrize("sent", [GET + b"Connection: close\r\n\r\n", None], ids=["without a body", "with a body"])
def test_a_request_that_comes_byte_by_byte_is_served(connect, sent):
    (connection,) = connect()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = sent or POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(NOTE) + NOTE
    for byte in sent:
        connection.sendall(bytes([byte]))
    got = Got(connection)
    assert (got.status, got.header(b"Content-Type")) == (201 if b"POST" in sent else 200, "application/json")


def test_chunks_pieces_and_pipelined_requests_are_told_apart(connect):
    (connection,) = connect()
    last = b"GET /notes/9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    chunks = CHUNKED + b'3\r\n{"t\r\nb\r\nitle": "a"}\r\n0\r\nX-Trailer: b\r\n\r\n'
    sent = GET + b"\r\n" + chunks + GET + b"\r\n" + last
    for start in range(0, len(sent), 37):
        connection.sendall(sent[start : start + 37])
    answers = Got(connection)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answers.head + answers.body)
    assert statuses == [b"200", b"201", b"200", b"200"]
    assert answers.body.endswith(b'{"id":9}\n')


def test_clients_that_do_not_close_after_their_last_answer_hold_nobody_up(server, connect):
    for connection in connect(GET + b"Connection: close\r\n\r\n", 20):
        assert Got(connection).status == 200
    _well(server, 1)


def test_who_asks_whether_to_send_the_body_is_told_once(connect):
    (connection,) = connect(POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n")
    assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(NOTE[:5])
    connection.sendall(NOTE[5:])
    assert Got(connection).status == 201
    (connection,) = connect(POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
    assert Got(connection).status == 413


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 100\r\n\r\n" + NOTE,
        CHUNKED + b"e\r\n" + NOTE + b"\r\n",
        CHUNKED + b"e\r\n" + NOTE + b"\r\n0\r\n",
        GET,
    ],
)
def test_who_leaves_before_the_end_has_asked_for_nothing(server, connect, sent):
    (connection,) = connect(sent)
    before = len([event for event in server.events if event.get("http_route") == "/notes/"])
    connection.shutdown(socket.SHUT_WR)
    assert Got(connection).status in {None, 400}
    _well(server)
    assert len([event for event in server.events if event.get("http_route") == "/notes/"]) == before + 1


def test_who_sends_all_and_no_more_gets_the_answer(connect):
    (connection,) = connect(POST + b"Content-Length: 14\r\n\r\n" + NOTE)
    connection.shutdown(socket.SHUT_WR)
    assert Got(connection).status == 201


def test_http_1_0_is_answered_and_closed(connect):
    (connection,) = connect(b"GET /notes/7 HTTP/1.0\r\n\r\n")
    assert Got(connection).body == b'{"id":7}\n'


def test_an_error_of_the_app_leaves_the_connection_open(connect):
    (connection,) = connect(POST + b"Content-Length: 2\r\n\r\n{}")
    answer = connection.recv(4096)
    while not answer.rstrip().endswith(b"}"):
        answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 422")
    connection.sendall(GET + b"Connection: close\r\n\r\n")
    assert Got(connection).status == 200


def test_half_a_request_holds_up_no_end(start, connect):
    server = start(SAMPLE)
    eventually(server.is_up, 20)
    connect(GET, 5, to=server)
    connect(b"", 5, to=server)
    _well(server)
    server.process.terminate()
    assert server.process.wait(8) == 0


PIECES = [
    b"GET ", b"POST ", b"/notes/", b"/notes/7", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\r\n\r\n", b"\n",
    b"Host: localhost", b"Host: x", b"Content-Length: ", b"Content-Type: application/json", b"5", b"0",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue", b"Connection: ", b"close", b"keep-alive", b"Upgrade: h2c", b"HTTP2-Settings: AAA",
    b"\x00", b"\xff", b" ", b"\t", b":", b";", b'"', b"%00", b"?limit=", PARENT, b"Idempotency-Key: ", b"[" * 500,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NOTE, b'{"title": 1, "title": "b"}',
]  # fmt: skip
WHOLE = [GET + b"\r\n", POST + b"Content-Length: 14\r\n\r\n" + NOTE, CHUNKED + b"0\r\n\r\n"]


def fuzzed(seed):
    """Bytes that are almost a request, or nothing like one: the same for the same seed."""
    choice = random.Random(seed)
    if choice.random() < 0.3:
        return b"".join(choice.choices(PIECES, k=choice.randint(1, 12))) + b"\r\n\r\n"
    sent = bytearray(choice.choice(WHOLE))
    for _ in range(choice.randint(1, 4)):
        where = choice.randrange(len(sent))
        piece = choice.choice(PIECES) if choice.random() < 0.5 else bytes([choice.randrange(256)])
        sent[where : where + choice.choice([0, 0, 1, len(piece)])] = piece
    return bytes(sent)


def test_no_bytes_are_a_server_error_or_answered_with_anything_but_json(server, connect):
    for seed in range(300):
        (connection,) = connect(fuzzed(seed))
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        assert_only_json(Got(connection), seed)
        connection.close()
    _well(server)
    assert not [event for event in server.events if event["level"] in {"error", "critical"}]


def assert_only_json(got, seed):
    """All answers of a connection are JSON, none a 5xx, and an error has its trace."""
    rest = got.head + b"\r\n\r\n" + got.body
    while rest.startswith(b"HTTP/1."):
        head, _, rest = rest.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert status < 500, (seed, head)
        length = int((re.findall(rb"(?im)^Content-Length: (\d+)", head) or [b"0"])[0])
        body, rest = rest[:length], rest[length:]
        if status >= 400:
            assert b"application/problem+json" in head, (seed, head)
            assert b'"trace_id":"' in body, (seed, body)
        elif length:
            assert b"application/json" in head, (seed, head)
    assert not rest.strip(), (seed, rest)
