"""What is large, either way: it comes whole, as long as the client goes on."""

import contextlib
import re
import socket
import time

import pytest

from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually
from tests.servicekit.conftest import Server

SIZE = 300_000
APP = "tests.servicekit.transfers:app"
CUT = "http_server_connections_cut_total"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfers")
    file = folder / "file"
    file.write_bytes(b"x" * 20_000_000)
    port = free_port()
    server = Server(APP, folder / "log", PORT=str(port), SENT_FILE=str(file))
    server.client = Client(f"http://127.0.0.1:{port}")
    eventually(server.is_up, 20)
    yield server
    server.client.session.close()
    server.stop()


@pytest.fixture
def connect(server):
    with contextlib.ExitStack() as opened:

        def run(sent, receive_buffer=None):
            connection = opened.enter_context(socket.socket())
            connection.settimeout(30)
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(server.address)
            connection.sendall(sent)
            return connection

        yield run


def _post(path, headers=b"", end=b"\r\n"):
    return b"POST /%s HTTP/1.1\r\nHost: localhost\r\n%s%s" % (path, headers, end)


LENGTH = b"Content-Length: %d\r\n" % SIZE
LAST = b"GET /large/5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _chunked(size=SIZE, piece=7_000):
    chunks = [min(piece, size - start) for start in range(0, size, piece)]
    return b"".join(b"%x\r\n%s\r\n" % (chunk, b"x" * chunk) for chunk in chunks) + b"0\r\n\r\n"


def _all_of(connection):
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


def _statuses(received):
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


BODIES = {"a length": (LENGTH, b"x" * SIZE), "chunks": (b"Transfer-Encoding: chunked\r\n", _chunked())}


@pytest.mark.parametrize("path", [b"data", b"stream"])
@pytest.mark.parametrize(("header", "body"), BODIES.values(), ids=BODIES)
def test_an_app_without_a_limit_gets_all_of_a_large_body_and_the_next_request(connect, path, header, body):
    received = _all_of(connect(_post(path, header) + body + LAST))
    assert _statuses(received) == [200, 200]
    assert b'{"got":%d}' % SIZE in received
    assert received.endswith(b"xxxxx")


def test_an_uploaded_file_comes_whole(server):
    assert server.client.post("/files", files={"file": b"x" * SIZE}).json() == {"got": SIZE}


@pytest.mark.parametrize(("header", "body"), BODIES.values(), ids=BODIES)
def test_who_waits_to_be_told_sends_all_of_a_large_body(connect, header, body):
    connection = connect(_post(b"data", b"Expect: 100-continue\r\nConnection: close\r\n" + header))
    assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert _all_of(connection).endswith(b'{"got":%d}\n' % SIZE)


def test_a_large_body_that_nobody_reads_ends_the_connection(connect):
    received = _all_of(connect(_post(b"unread", b"Expect: 100-continue\r\n" + LENGTH)))
    assert _statuses(received) == [200]
    assert b"Connection: close" in received


@pytest.mark.parametrize(("header", "body"), BODIES.values(), ids=BODIES)
def test_half_a_large_body_is_no_body(server, connect, header, body):
    connection = connect(_post(b"data", header) + body[: SIZE // 2])
    connection.shutdown(socket.SHUT_WR)
    assert _statuses(_all_of(connection)) == [400]
    assert not [event for event in server.events if event["level"] == "error"]


def test_a_large_body_that_goes_wrong_is_a_bad_request(server, connect):
    sent = _chunked(100_000)[:-5] + b"canary\r\n"
    assert _statuses(_all_of(connect(_post(b"data", BODIES["chunks"][0]) + sent))) == [400]
    assert not [event for event in server.events if event["level"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize(("header", "body"), BODIES.values(), ids=BODIES)
def test_a_large_body_that_comes_slowly_comes_whole_and_one_that_trickles_is_late(connect, header, body):
    steady, trickling = (connect(_post(b"data", b"Connection: close\r\n" + header) + body[:70_000]) for _ in range(2))
    start, sent = time.monotonic(), 70_000
    trickling.settimeout(0)
    answer = b""
    while sent < len(body) or not answer:
        if sent < len(body):
            steady.sendall(body[sent : sent + 8_000])
            sent += 8_000
        if not answer:
            trickling.send(b"x")
            with contextlib.suppress(BlockingIOError):
                answer = trickling.recv(4096)
        time.sleep(0.4)
        assert time.monotonic() - start < 30
    assert _statuses(answer) == [408]
    assert _all_of(steady).endswith(b'{"got":%d}\n' % SIZE)


def test_many_large_bodies_that_do_not_go_on_hold_nobody_up(server, connect):
    before = server.client.metric(CUT, reason="crowded")
    for _ in range(60):
        connect(_post(b"data", LENGTH))
    eventually(lambda: server.client.metric(CUT, reason="crowded") >= before + 28, 10)
    assert server.client.get("/large/5").elapsed.total_seconds() < 2


ANSWERS = {
    "in one piece": b"/large/20000000",
    "in pieces": b"/pieces/200/100000",
    "in small pieces": b"/pieces/20000/1000",
    "a file": b"/file",
}


def _get(path):
    return b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path


@pytest.mark.slow
@pytest.mark.parametrize("path", ANSWERS.values(), ids=ANSWERS)
def test_a_large_answer_that_is_read_steadily_comes_whole(connect, path):
    connection = connect(_get(path), receive_buffer=65536)
    start, read = time.monotonic(), 0
    while piece := connection.recv(65536):
        read += len(piece)
        time.sleep(max(0.0, start + read / 2_500_000 - time.monotonic()))
    assert time.monotonic() - start > 7
    assert read > 20_000_000


@pytest.mark.slow
@pytest.mark.parametrize("path", ANSWERS.values(), ids=ANSWERS)
def test_a_large_answer_that_is_read_byte_by_byte_is_cut(server, connect, path):
    before = server.client.metric(CUT, reason="unread")
    connection = connect(_get(path), receive_buffer=4096)

    def is_cut():
        connection.recv(1)
        return server.client.metric(CUT, reason="unread") == before + 1

    eventually(is_cut, 15, 0.5)
