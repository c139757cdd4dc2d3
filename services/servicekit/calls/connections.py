"""HTTP/1.1 over persistent connections, by pyreqwest (Rust's reqwest), with errors that say whether a request was sent.

The names of pyreqwest's errors do not tell this: it raises its ConnectTimeoutError also if an answer does not come in
time. The causes of the errors tell it. If they do not, the request counts as sent.
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
_IDLE = timedelta(seconds=60)  # less than gunicorn's 75, so that the client closes first and loses no request
_MOST_SECONDS = 60.0  # one address may stand for many replicas; a new replica gets calls only over new connections


class NoAnswerError(Exception):
    """There is no answer."""


class NotConnectedError(NoAnswerError):
    """Nothing was sent, because the peer refused the connection or cannot be reached."""


class NameNotResolvedError(NotConnectedError):
    """The peer's name cannot be resolved."""


class NotTrustedError(NotConnectedError):
    """The TLS connection failed, for example because this machine does not trust the certificate."""


class ConnectTimeoutError(NotConnectedError):
    """Connecting took too long."""


class NoFreeConnectionError(NoAnswerError):
    """Nothing was sent: all connections were in use for longer than a caller waits."""


class AnswerTimeoutError(NoAnswerError):
    """The request was sent, but no complete answer came in time. The peer may have done the work."""


class BrokenAnswerError(NoAnswerError):
    """The connection broke before the answer was complete, or the answer is not valid HTTP, or it is too large."""


class RawAnswer(NamedTuple):
    """The answer."""

    status: int
    body: bytes


class Connections:
    """Connections to one peer, shared by all threads.

    Nothing is started before the first request, because pyreqwest's thread does not survive a fork. If a process has
    sent a request and then forks, the child cannot send any (RuntimeError). gunicorn's master sends no requests, so it
    may create the application before or after the fork.

    All connections are replaced each minute. If a peer's address stands for many replicas, as in Kubernetes, a
    connection stays with one of them, and replicas that were added later would get no calls.

    If a signal (Ctrl-C) reaches a thread that waits for an answer, it is handled after the answer or the timeout.

    Args:
        base_url: The peer's root, such as `http://127.0.0.1:8000`; a user and password in it are sent (RFC 7617).
        most: The most requests at the same time. A new connection may be opened while another one is just being
            returned, so for a moment there can be up to twice as many connections.
        wait_seconds: How long a caller waits if there are already that many.
        connect_seconds: The time limit for connecting.
        seconds: The time limit for the whole exchange, to the answer's last byte.

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
            headers: Headers in addition to `Host` and `Content-Length`.
            body: What to send.

        Raises:
            NoFreeConnectionError: Nothing was sent.
            NotConnectedError: Nothing was sent.
            AnswerTimeoutError: It was sent, but no answer came in time.
            BrokenAnswerError: It was sent, but no complete answer will come.
        """
        try:
            builder = self._started().request(method, self._root + path).headers(headers)
            if body is not None:
                builder = builder.body_bytes(body)
            with builder.build_streamed() as response:
                content = response.body_reader.read(MAX_ANSWER + 1)
                status = response.status
        except BuilderError as error:  # an unreadable certificate store, or an invalid URL
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
                # The old client closes after the last request that still uses it.
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
            # There is no certificate to check. Without this, a system that has no certificates could not build it.
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
