"""Calls to other services, with pooled connections, time limits, spans, and retries where they are safe."""

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
_HANGS = 3  # timeouts in a row after which the peer counts as hanging
_PAUSE_SECONDS = 1.0  # between two calls that check a hanging peer


@dataclass(frozen=True)
class Reply:
    """Another service's answer.

    Attributes:
        status: HTTP status, below 500.
        body: The decoded JSON, None if there is none.
    """

    status: int
    body: Any


class Credential(Protocol):
    """Tells another service who calls it."""

    def token(self) -> str:
        """Return a bearer token.

        Raises:
            DependencyUnavailable: No token could be fetched.
        """

    def refused(self, token: str) -> None:
        """Forget a token that the other service rejected although it has not expired."""


class _Breaker:
    """A circuit breaker, so that callers do not all wait for a peer that hangs.

    Only timeouts count, because a refused connection or a 500 takes no time. While the breaker is open, one call a
    second goes through as a check; if it is answered, the breaker closes.
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
        metrics: The metrics that count calls.
        tracer: Creates a span for each call.
        timeout_seconds: The time limit of one try, including connecting.
        connections: The most calls at the same time; a further caller waits for a moment. If it is less than the number
            of the service's threads, a peer that hangs cannot block them all.
        credential: Gives the token for each call, if the peer asks for one.
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
        """GET a resource. A failed call is tried once more, since repeating a GET is safe.

        Args:
            route: Route template, such as `/parcels/{parcel_id}`.
            path: The values for the template.

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
            idempotency_key: Sent as `Idempotency-Key`; the peer does the work only once for each key.
            authorization: Sent as `Authorization` if the client has no credential.
            retry: Whether to try once more after a failure. Only for requests that are safe to repeat.

        Returns:
            The answer.

        Raises:
            DependencyUnavailable: No answer in time, or a 5xx. The peer may have done the work all the same.
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
            self._credential.refused(token)  # its signing key may have been revoked; try with a new token
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
                span.fail("circuit_open")  # no call is made; the span shows why the caller fails
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
            if status >= 400:  # noqa: PLR2004  # an error for a client span, by the semantic conventions
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
            raise  # no retry: it would slow a slow service down further, and double the wait
        except NoAnswerError:
            if retried_in is None:
                raise
        self._metrics.call_retried(self._peer)
        retried_in.set("http.request.resend_count", 1)
        return self._connections.request(method, target, headers, body)


def _refuses_the_token(reply: Reply) -> bool:
    """Tell whether a 401 is about the caller's token. It may also be about credentials in the body."""
    return reply.status == HTTPStatus.UNAUTHORIZED and is_problem(reply.body, UNAUTHENTICATED)
