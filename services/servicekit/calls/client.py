"""Calls to other services: pooled, bounded in time, tried again only where that is safe, traced."""

import functools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from servicekit.calls.connections import (
    AnswerTimeoutError,
    Connections,
    ConnectTimeoutError,
    NoAnswerError,
    NoFreeConnectionError,
    RawAnswer,
)
from servicekit.telemetry import tracing
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer, Work
from servicekit.web.errors import UNAUTHENTICATED, DependencyUnavailable, is_problem

_CONNECT_SECONDS = 0.5
_POOL_WAIT_SECONDS = 0.1
_HANGS = 3  # answers in a row that did not come in time, until the peer counts as hanging
_PAUSE_SECONDS = 1.0  # between two looks at a peer that hangs


@dataclass(frozen=True)
class Reply:
    """Another service's answer.

    Attributes:
        status: HTTP status, below 500.
        body: The decoded JSON, None where there is none.
    """

    status: int
    body: Any


class Credential(Protocol):
    """What says to another service who calls."""

    def token(self) -> str:
        """Return a bearer token.

        Raises:
            DependencyUnavailable: There is none to be had.
        """

    def refused(self, token: str) -> None:
        """Forget a token that the other service did not take, though it has not expired."""


class _Breaker:
    """Keeps callers from waiting, one after the other, for a peer that hangs.

    Only silence counts: a refused connection or a 500 costs no time. While it is open, one call a second goes through
    to look; its answer closes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hangs = 0
        self._look_at = 0.0

    def allows(self) -> bool:
        with self._lock:
            if self._hangs < _HANGS:
                return True
            now = time.monotonic()
            if now < self._look_at:
                return False
            self._look_at = now + _PAUSE_SECONDS
            return True

    def answered(self) -> None:
        self._hangs = 0

    def hung(self) -> None:
        with self._lock:
            self._hangs += 1
            self._look_at = time.monotonic() + _PAUSE_SECONDS


class ServiceClient:
    """A client of one other service, shared by all threads.

    Args:
        peer: The other service's name, such as `parcel-service`.
        base_url: Its root, such as `http://127.0.0.1:8000`.
        metrics: Where calls are counted.
        tracer: What makes a span of each call.
        timeout_seconds: How long one try may take, connecting included.
        connections: Calls under way at most; a caller beyond waits a moment. Fewer than the service's threads, a peer
            that hangs cannot hold them all.
        credential: What each call is sent with, for a peer that wants to know who calls.
    """

    def __init__(  # noqa: PLR0913
        self,
        peer: str,
        base_url: str,
        metrics: Metrics,
        tracer: Tracer,
        *,
        timeout_seconds: float,
        connections: int = 32,
        credential: Credential | None = None,
    ) -> None:
        self._peer = peer
        self._credential = credential
        self._base_url = base_url
        self._metrics = metrics
        self._tracer = tracer
        metrics.peer_known(peer)
        self._breaker = _Breaker()
        self._attributes = functools.lru_cache(128)(self._describe)
        self._connections = Connections(
            base_url,
            most=connections,
            wait_seconds=_POOL_WAIT_SECONDS,
            connect_seconds=min(_CONNECT_SECONDS, timeout_seconds / 2),
            seconds=timeout_seconds,
        )

    @property
    def peer(self) -> str:
        """The other service's name."""
        return self._peer

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def get(self, route: str, **path: int) -> Reply:
        """GET a resource; one more try after a failure, since reading twice harms nobody.

        Args:
            route: Route template, such as `/parcels/{parcel_id}`.
            path: The values for it.

        Returns:
            The answer.

        Raises:
            DependencyUnavailable: No answer in time, or a 5xx.
        """
        return self._call("GET", route, path, None, {}, retry=True)

    def post(
        self,
        route: str,
        body: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        authorization: str | None = None,
        retry: bool = False,
    ) -> Reply:
        """POST a JSON body.

        Args:
            route: Route template.
            body: What to send.
            idempotency_key: Sent as `Idempotency-Key`: the other side does the work once for a key.
            authorization: Sent as `Authorization`, where the client has no credential.
            retry: One more try after a failure. Only for what is safe to do twice.

        Returns:
            The answer.

        Raises:
            DependencyUnavailable: No answer in time, or a 5xx. The work may have been done all the same.
        """
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if authorization is not None:
            headers["Authorization"] = authorization
        return self._call("POST", route, {}, orjson.dumps(body), headers, retry=retry)

    def _call(  # noqa: PLR0913
        self,
        method: str,
        route: str,
        path: Mapping[str, int],
        body: bytes | None,
        headers: dict[str, str],
        *,
        retry: bool,
    ) -> Reply:
        if self._credential is None:
            return self._exchange(method, route, path, body, headers, retry=retry)
        for _ in range(2):
            token = self._credential.token()
            headers["Authorization"] = f"Bearer {token}"
            reply = self._exchange(method, route, path, body, headers, retry=retry)
            if not _refuses_the_token(reply):
                return reply
            self._credential.refused(token)  # the key that signed it was withdrawn, say; a new one may do
        raise DependencyUnavailable(self._peer)

    def _exchange(  # noqa: PLR0913
        self,
        method: str,
        route: str,
        path: Mapping[str, int],
        body: bytes | None,
        headers: dict[str, str],
        *,
        retry: bool,
    ) -> Reply:
        with self._tracer.client(f"{method} {route}", self._attributes(method, route)) as span:
            if not self._breaker.allows():
                span.fail("circuit_open")  # no call is made, but that is why its caller fails
                self._metrics.call_ended(self._peer, method, route, None, 0.0)
                raise DependencyUnavailable(self._peer)
            headers["Accept"] = "application/json"
            tracing.inject(headers)
            started = time.perf_counter()
            status: int | None = None
            try:
                answer = self._answer(method, route.format(**path), headers, body, span if retry else None)
                status = answer.status
                self._breaker.answered()
                content = orjson.loads(answer.body) if answer.body else None
            except (NoAnswerError, orjson.JSONDecodeError) as error:
                if isinstance(error, AnswerTimeoutError | ConnectTimeoutError):
                    self._breaker.hung()
                raise DependencyUnavailable(self._peer) from error
            finally:
                self._metrics.call_ended(self._peer, method, route, status, time.perf_counter() - started)
                if status is not None:
                    span.set("http.response.status_code", status)
            if status >= 400:  # noqa: PLR2004  # to a client, says the convention, that is an error
                span.fail(str(status))
            if status >= 500:  # noqa: PLR2004
                raise DependencyUnavailable(self._peer)
            return Reply(status, content)

    def _describe(self, method: str, route: str) -> dict[str, str | int]:
        return {
            "http.request.method": method,
            "url.template": route,
            "server.address": self._connections.host,
            "server.port": self._connections.port,
            "peer.service": self._peer,
        }

    def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, retried_in: Work | None
    ) -> RawAnswer:
        try:
            return self._connections.request(method, target, headers, body)
        except (AnswerTimeoutError, NoFreeConnectionError):
            raise  # asking a slow service twice makes it slower, and the client wait twice as long
        except NoAnswerError:
            if retried_in is None:
                raise
        self._metrics.call_retried(self._peer)
        retried_in.set("http.request.resend_count", 1)
        return self._connections.request(method, target, headers, body)


def _refuses_the_token(reply: Reply) -> bool:
    """Tell whether it is the caller's token that is wrong: a 401 of a view may be about what the body says."""
    return reply.status == HTTPStatus.UNAUTHORIZED and is_problem(reply.body, UNAUTHENTICATED)
