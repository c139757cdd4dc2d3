"""HTTP/1.1 over kept connections, for calls between services: plain sockets, and httptools' parser.

urllib3, which reads headers with Python's e-mail parser, takes twenty times as long for a small answer, and an order is
two of them. What it does beyond this, redirects, cookies, proxies, compression, no service here needs.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

MAX_ANSWER = 1024 * 1024
_CHUNK = 64 * 1024


class AnswerTimeoutError(TimeoutError):
    """The request was sent, and there was no whole answer in time: the work may have been done all the same."""


class NoFreeConnectionError(TimeoutError):
    """All connections were in use for longer than a caller waits."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after: str


class Connections:
    """Connections to one peer, shared by all threads.

    Args:
        base_url: The peer's root, such as `http://127.0.0.1:5005`.
        most: Connections kept and used at most.
        wait_seconds: How long a caller waits for a free one.
        connect_seconds: How long connecting may take.
        answer_seconds: How long an answer may take, from the request's last byte to its own.

    Attributes:
        host: The peer's name or address.
        port: Its port.
    """

    def __init__(
        self, base_url: str, *, most: int, wait_seconds: float, connect_seconds: float, answer_seconds: float
    ) -> None:
        url = urlsplit(base_url)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self.host = url.hostname or ""
        self.port = url.port or (443 if self._tls else 80)
        self._netloc = url.netloc.rpartition("@")[2]
        self._room = threading.BoundedSemaphore(most)
        self._idle: list[socket.socket] = []  # the last one used is the next one taken: the others grow old and close
        self._wait_seconds = wait_seconds
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds

    def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send a request and wait for its answer.

        Args:
            method: The method.
            target: Path and query, already encoded.
            headers: Headers beside `Host` and `Content-Length`.
            body: What to send.

        Raises:
            NoFreeConnectionError: Nothing was sent.
            AnswerTimeoutError: It was sent; no answer in time.
            OSError: It could not be sent, or the connection broke before the answer was whole.
            httptools.HttpParserError: What came back is no HTTP.
        """
        request = _written(method, target, self._netloc, headers, body)
        if not self._room.acquire(timeout=self._wait_seconds):
            raise NoFreeConnectionError
        try:
            connection = self._take()
            try:
                answer, keeps = _exchange(connection, request, self._answer_seconds)
            except BaseException:
                connection.close()
                raise
            if keeps:
                self._idle.append(connection)
            else:
                connection.close()
            return answer
        finally:
            self._room.release()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> socket.socket:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if not _readable(connection):
                return connection
            connection.close()  # the peer closed it, or said something that nobody asked for

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), self._connect_seconds)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self.host)
            connection.settimeout(self._answer_seconds)
        except BaseException:
            connection.close()
            raise
        return connection


class _Reader:
    """Collects an answer; httptools calls it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.retry_after = b""
        self.whole = False
        self.keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value

    def on_headers_complete(self) -> None:
        self.keeps = self.parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.whole = True


def _exchange(connection: socket.socket, request: bytes, seconds: float) -> tuple[Answer, bool]:
    connection.sendall(request)
    end = time.monotonic() + seconds
    reader = _Reader()
    while not reader.whole:
        try:
            piece = connection.recv(_CHUNK)
        except TimeoutError:
            raise AnswerTimeoutError from None
        if not piece:
            raise ConnectionResetError("closed before the answer was whole")
        reader.parser.feed_data(piece)
        if len(reader.body) > MAX_ANSWER:
            raise OSError("the answer is too large")
        if not reader.whole and time.monotonic() > end:
            raise AnswerTimeoutError
    return Answer(reader.parser.get_status_code(), reader.body, reader.retry_after.decode("latin-1")), reader.keeps


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _written(method: str, target: str, netloc: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a header would begin a request of somebody else's")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
