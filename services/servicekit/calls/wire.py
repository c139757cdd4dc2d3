"""HTTP/1.1 over kept connections, for calls between services: plain sockets, and httptools' parser.

urllib3, which reads headers with Python's e-mail parser, takes twenty times as long for a small answer. What it does
beyond this, redirects, cookies, proxies, compression, no service here needs.
"""

import base64
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import httptools

MAX_ANSWER = 1024 * 1024
_IDLE_SECONDS = 60.0  # gunicorn closes after 75: whoever closes first loses no request
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
        base_url: The peer's root, such as `http://127.0.0.1:8000`; a user and password in it are sent (RFC 7617).
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
        self._headers = {"Host": url.netloc.rpartition("@")[2]}
        if url.username is not None:
            user = f"{unquote(url.username)}:{unquote(url.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._room = threading.BoundedSemaphore(most)
        # Each with the time of its last use. The one used last is taken first: the others grow old, and are closed.
        self._idle: list[tuple[float, socket.socket]] = []
        self._wait_seconds = wait_seconds
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float | None = None,
    ) -> Answer:
        """Send a request and wait for its answer.

        Args:
            method: The method.
            target: Path and query, already encoded.
            headers: Headers beside `Host` and `Content-Length`.
            body: What to send.
            seconds: How long connecting and answer may take together, if it is less than they may each.

        Raises:
            NoFreeConnectionError: Nothing was sent.
            AnswerTimeoutError: It was sent; no answer in time.
            OSError: It could not be sent, or the connection broke before the answer was whole.
            httptools.HttpParserError: What came back is no HTTP.
        """
        request = _written(method, target, {**self._headers, **headers}, body)
        last = math.inf if seconds is None else time.monotonic() + seconds
        if not self._room.acquire(timeout=self._wait_seconds):
            raise NoFreeConnectionError
        try:
            connection = self._take(last)
            try:
                answer, keeps = _exchange(connection, request, min(last, time.monotonic() + self._answer_seconds))
            except BaseException:
                connection.close()
                raise
            if keeps:
                self._idle.append((time.monotonic(), connection))
            else:
                connection.close()
            return answer
        finally:
            self._room.release()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self, last: float) -> socket.socket:
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return self._connect(last)
            if time.monotonic() - since < _IDLE_SECONDS and not _readable(connection):
                return connection
            connection.close()  # too old, closed by the peer, or the peer said something that nobody asked for

    def _connect(self, last: float) -> socket.socket:
        seconds = min(self._connect_seconds, last - time.monotonic())
        if seconds <= 0:
            raise TimeoutError
        connection = socket.create_connection((self.host, self.port), seconds)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise
        return connection


class _Reader:
    """Collects an answer; httptools calls it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.whole = False
        self.more = False
        self.on_message_begin()

    def on_message_begin(self) -> None:
        if self.whole:
            self.more = True  # nobody asked for a second answer: it is not the next request's
            return
        self.status = 0
        self.body = b""
        self.retry_after = b""
        self.keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.more and name.lower() == b"retry-after":
            self.retry_after = value

    def on_headers_complete(self) -> None:
        if not self.more:
            self.status = self.parser.get_status_code()
            self.keeps = self.parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        if not self.more:
            self.body += piece

    def on_message_complete(self) -> None:
        self.whole = self.status >= HTTPStatus.OK  # below is an interim answer (RFC 9110, section 15.2)


def _exchange(connection: socket.socket, request: bytes, end: float) -> tuple[Answer, bool]:
    _limit(connection, end)
    connection.sendall(request)
    reader = _Reader()
    while not reader.whole:
        try:
            _limit(connection, end)
            piece = connection.recv(_CHUNK)
        except TimeoutError:
            raise AnswerTimeoutError from None
        if not piece:
            raise ConnectionResetError("closed before the answer was whole")
        reader.parser.feed_data(piece)
        if len(reader.body) > MAX_ANSWER:
            raise OSError("the answer is too large")
    answer = Answer(reader.status, reader.body, reader.retry_after.decode("latin-1"))
    return answer, reader.keeps and not reader.more


def _limit(connection: socket.socket, end: float) -> None:
    """Let the next operation take no longer than until `end`."""
    if (remaining := end - time.monotonic()) <= 0:
        raise TimeoutError
    connection.settimeout(remaining)


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _written(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a header would begin a request of somebody else's")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
