"""HTTP/1.1 over kept connections, by pyreqwest (Rust's reqwest), with errors that say what became of a request.

pyreqwest names its errors after its own steps: its ConnectTimeoutError is raised for an answer that does not come, too.
What is known for sure stands in their causes; what is not found there counts as sent.
"""

import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import BuilderError, PoolTimeoutError, RequestError, RequestTimeoutError

MAX_ANSWER = 1024 * 1024
_IDLE = timedelta(seconds=60)  # gunicorn closes after 75: whoever closes first loses no request
_MOST_SECONDS = (
    60.0  # behind one address there may be many replicas: one that is new gets work as connections are made anew
)


class NoAnswerError(Exception):
    """There is no answer."""


class NotConnectedError(NoAnswerError):
    """Nothing was sent: there is no connection to the peer. It refuses one, or cannot be reached."""


class NameNotResolvedError(NotConnectedError):
    """The peer's name has no address."""


class NotTrustedError(NotConnectedError):
    """No connection by TLS: the certificate is not one that this machine trusts, say."""


class ConnectTimeoutError(NotConnectedError):
    """Connecting took too long."""


class NoFreeConnectionError(NoAnswerError):
    """Nothing was sent: as many requests as may be were under way for longer than a caller waits."""


class AnswerTimeoutError(NoAnswerError):
    """The request was sent, and there was no whole answer in time: the work may have been done all the same."""


class BrokenAnswerError(NoAnswerError):
    """The connection broke before the answer was whole, or what came is no answer: no HTTP, or too large."""


class RawAnswer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class Connections:
    """Connections to one peer, shared by all threads.

    Nothing is started before the first request: pyreqwest's thread does not survive a fork, so a process that has sent
    a request must not fork into another that does. Requests there are refused (RuntimeError). gunicorn's master sends
    none, so it does not matter whether it makes the application before it forks or after.

    All of them are made anew each minute: where a peer's address stands for many replicas, as in Kubernetes, a
    connection stays with one of them, and those that come later would have nothing to do.

    Signals (Ctrl-C) that reach the thread that waits for an answer are handled when it has one, or none in time.

    Args:
        base_url: The peer's root, such as `http://127.0.0.1:8000`; a user and password in it are sent (RFC 7617).
        most: Requests under way at most. A connection is opened for one while another may just be coming back, so that
            there can be up to twice as many connections for a moment.
        wait_seconds: How long a caller waits while there are as many.
        connect_seconds: How long connecting may take.
        seconds: How long all may take together, to the answer's last byte.

    Attributes:
        host: The peer's name or address.
        port: Its port.
    """

    def __init__(
        self, base_url: str, *, most: int, wait_seconds: float, connect_seconds: float, seconds: float
    ) -> None:
        url = urlsplit(base_url)
        self._tls = url.scheme == "https"
        self.host = url.hostname or ""
        self.port = url.port or (443 if self._tls else 80)
        self._root = base_url.rstrip("/")
        self._most = most
        self._wait = timedelta(seconds=wait_seconds)
        self._connect = timedelta(seconds=connect_seconds)
        self._all = timedelta(seconds=seconds)
        self._lock = threading.Lock()
        self._client: SyncClient | None = None
        self._process, self._began = 0, 0.0

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> RawAnswer:
        """Send a request and wait for its answer.

        Args:
            method: The method.
            path: The path, already encoded.
            headers: Headers beside `Host` and `Content-Length`.
            body: What to send.

        Raises:
            NoFreeConnectionError: Nothing was sent.
            NotConnectedError: Nothing was sent.
            AnswerTimeoutError: It was sent; no answer in time.
            BrokenAnswerError: It was sent; no whole answer will come.
        """
        try:
            builder = self._started().request(method, self._root + path).headers(headers)
            if body is not None:
                builder = builder.body_bytes(body)
            with builder.build_streamed() as response:
                content = response.body_reader.read(MAX_ANSWER + 1)
                status = response.status
        except BuilderError as error:  # a certificate store that cannot be read, a URL that is none
            raise NotTrustedError from error
        except RequestError as error:
            raise _told_apart(error) from error
        if content is not None and len(content) > MAX_ANSWER:
            raise BrokenAnswerError("the answer is too large")
        if status < HTTPStatus.OK:
            raise BrokenAnswerError("another protocol than was asked for")
        return RawAnswer(status, b"" if content is None else content.to_bytes())

    def close(self) -> None:
        """Close all connections. A later request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    def _started(self) -> SyncClient:
        now = time.monotonic()
        with self._lock:
            if self._client is None or self._process != os.getpid() or now - self._began > _MOST_SECONDS:
                # The old one ends with the last request that is under way over it.
                self._client, self._process, self._began = self._built(), os.getpid(), now
            return self._client

    def _built(self) -> SyncClient:
        builder = (
            SyncClientBuilder()
            .http1_only()
            .max_connections(self._most)
            .pool_max_idle_per_host(self._most)
            .pool_timeout(self._wait)
            .pool_idle_timeout(_IDLE)
            .connect_timeout(self._connect)
            .timeout(self._all)
            .follow_redirects(enable=False)
            .referer(enable=False)
            .no_proxy()
            .gzip(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .deflate(enable=False)
        )
        if not self._tls:
            # No TLS, so nothing to accept; but where the system has no certificates, it would refuse to be built.
            builder = builder.danger_accept_invalid_certs(enable=True)
        return builder.build()


def _told_apart(error: RequestError) -> NoAnswerError:
    causes = {cause["message"] for cause in error.details["causes"] or ()}
    connecting = "client error (Connect)" in causes
    if isinstance(error, PoolTimeoutError):
        return NoFreeConnectionError()
    if isinstance(error, RequestTimeoutError):
        return ConnectTimeoutError() if connecting else AnswerTimeoutError()
    if not connecting:
        return BrokenAnswerError()
    if "dns error" in causes:
        return NameNotResolvedError()
    return NotConnectedError() if "tcp connect error" in causes else NotTrustedError()
