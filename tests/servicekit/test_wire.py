"""Answers as a peer may send them: whole, in pieces, too late, too much, or not at all."""

import base64
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httptools
import pytest

from servicekit.calls.wire import MAX_ANSWER, Answer, AnswerTimeoutError, Connections, NoFreeConnectionError
from tests.fixtures.services import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def serve(connection, script, seen, over):
    with connection:
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif step is None:
                return
            elif step == "request":
                seen.append(connection.recv(65536))
            else:
                over.wait(step)
        over.wait(10)


@pytest.fixture
def peer():
    """Serve each connection with the next of some scripts: bytes to send, seconds to wait, None for the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    over = threading.Event()
    seen: list[bytes] = []
    threads: list[threading.Thread] = []

    def accept(scripts):
        for script in scripts:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                threads.append(threading.Thread(target=serve, args=(connection, script, seen, over)))
                threads[-1].start()
                break

    def start(*scripts):
        threads.append(threading.Thread(target=accept, args=(scripts,)))
        threads[-1].start()
        return listener.getsockname()[1], seen

    yield start
    over.set()
    for thread in threads:
        thread.join()
    listener.close()


@pytest.fixture
def connect():
    made = []

    def make(port, user="", **limits):
        limits = {"most": 1, "wait_seconds": 0.1, "connect_seconds": 1, "answer_seconds": 1} | limits
        made.append(Connections(f"http://{user}127.0.0.1:{port}", **limits))
        return made[-1]

    yield make
    for connections in made:
        connections.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, Answer(200, b"hi", "")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"", "")),
        (b"HTTP/1.1 503 x\r\nretry-after: 7\r\nContent-Length: 0\r\n\r\n", Answer(503, b"", "7")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n6\r\n there\r\n0\r\n\r\n",
            Answer(200, b"hi there", ""),
        ),
    ],
)
def test_an_answer_is_read_whole_however_it_is_cut(peer, connect, answer, expected):
    pieces = [piece for byte in answer for piece in (bytes([byte]), 0.001)]
    port, _ = peer(["request", *pieces])
    assert connect(port).request("GET", "/", {}) == expected


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\r\nRetry-After: 9\r\n\r\n"])
@pytest.mark.parametrize("pause", [(), (0.05,)])
def test_an_interim_answer_is_not_the_answer(peer, connect, interim, pause):
    port, _ = peer(["request", interim, *pause, OK])
    assert connect(port).request("GET", "/", {}) == Answer(200, b"hi", "")


def test_what_nobody_asked_for_is_not_the_answer_to_the_next_request(peer, connect):
    second = b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno"
    port, _ = peer(["request", OK + second], ["request", OK])
    connections = connect(port)
    assert [connections.request("GET", "/", {}) for _ in range(2)] == [Answer(200, b"hi", "")] * 2


def test_an_answer_in_drips_takes_no_longer_than_one_that_hangs(peer, connect):
    port, _ = peer(["request", OK[:-2], 0.3, b"h", 0.3, b"i"])
    started = time.monotonic()
    with pytest.raises(AnswerTimeoutError):
        connect(port, answer_seconds=0.4).request("GET", "/", {})
    assert time.monotonic() - started < 0.6


def test_a_caller_may_have_less_time_than_the_peer(peer, connect):
    port, _ = peer(["request", 5])
    started = time.monotonic()
    with pytest.raises(AnswerTimeoutError):
        connect(port, answer_seconds=5).request("GET", "/", {}, seconds=0.3)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (["request", OK[:-1], None], ConnectionResetError),
        (["request", b"<html>"], httptools.HttpParserError),
        (["request", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (MAX_ANSWER + 1)], OSError),
    ],
)
def test_what_is_no_answer_is_an_error(peer, connect, script, error):
    port, _ = peer(script)
    with pytest.raises(error):
        connect(port).request("GET", "/", {})


def test_who_finds_no_free_connection_is_told_soon(peer, connect):
    port, seen = peer(["request", 0.5, OK])
    connections = connect(port)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(connections.request, "GET", "/", {})
        eventually(lambda: seen)
        with pytest.raises(NoFreeConnectionError):
            connections.request("GET", "/", {})
        assert held.result().status == 200


@pytest.mark.parametrize("headers", [{"x": "1\r\nGET / HTTP/1.1"}, {"x\n": "1"}])
def test_a_line_break_begins_no_second_request(connect, headers):
    with pytest.raises(ValueError, match="line break"):
        connect(1).request("GET", "/", headers)


def test_a_body_and_who_asks_are_sent(peer, connect):
    port, seen = peer(["request", OK])
    connect(port, user="me:p%40ss@").request("POST", "/x?y=1", {"a": "b"}, b"{}")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    expected = {
        b"POST /x?y=1 HTTP/1.1",
        f"Host: 127.0.0.1:{port}".encode(),
        b"a: b",
        b"Content-Length: 2",
        b"Authorization: Basic " + base64.b64encode(b"me:p@ss"),
    }
    assert (set(head.split(b"\r\n")), body) == (expected, b"{}")
