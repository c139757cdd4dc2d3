"""Who is asking: tokens verified here, in the service, with auth-service's published keys."""

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ParamSpec, Protocol, TypeVar

import jwt
from flask import g, request

from servicekit import logs
from servicekit.config import TokenSettings, VerifierSettings
from servicekit.errors import DependencyUnavailable, ErrorTable, Problem
from servicekit.http import ServiceClient
from servicekit.metrics import Metrics
from servicekit.tracing import Tracer

ALGORITHM = "RS256"
"""The one algorithm accepted. RS256: every request verifies, only a login signs, and RSA verifies fastest."""

_REFETCH_SECONDS = 10.0  # an unknown `kid` is a rotation, or somebody's guess: guesses must not become load on auth
_RETRY_SECONDS = 1.0  # after a failure; requests must not queue up, each to wait for an auth-service that hangs
_MAX_TOKEN = 4096
_MOST_VERIFIED = 1024  # tokens remembered: with _MAX_TOKEN, 4 MB
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Unauthenticated(Exception):  # noqa: N818
    """There is no valid token. The message is the same whatever is wrong with it."""

    def __init__(self) -> None:
        super().__init__("This needs a valid bearer token: get one from POST /auth/login.")


class Forbidden(Exception):  # noqa: N818
    """The token is valid, but its owner may not do this."""

    def __init__(self) -> None:
        super().__init__("Your role does not allow this.")


ERRORS: ErrorTable = {
    Unauthenticated: Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthenticated",
        "No valid token",
        headers={"WWW-Authenticate": 'Bearer realm="shop"'},
    ),
    Forbidden: Problem(HTTPStatus.FORBIDDEN, "forbidden", "Not allowed"),
}


@dataclass(frozen=True)
class Principal:
    """The user whose token a request carries.

    Attributes:
        user_id: The user's id.
        role: `customer` or `admin`.
    """

    user_id: int
    role: str

    @property
    def is_admin(self) -> bool:
        """Whether this user may see what belongs to others."""
        return self.role == "admin"


@dataclass(frozen=True)
class _Verified:
    """What a token said whose signature was right: as long as its key is published and it has not expired, it still is.

    A shopper sends the same one again and again, and checking a signature takes longer than reading a row.
    """

    kid: str
    key: Any
    principal: Principal
    expires_at: int


class KeySource(Protocol):
    """Where verification keys come from."""

    def key(self, kid: str) -> Any | None:
        """Return the public key with this id, None if there is none.

        Raises:
            DependencyUnavailable: The keys could not be had.
        """


class JwksClient:
    """auth-service's keys, fetched when first needed and again when an unknown `kid` turns up.

    Args:
        client: A client of auth-service.
        clock: Seconds, for tests.
    """

    def __init__(self, client: ServiceClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Mapping[str, Any] = {}
        self._asked_at = float("-inf")
        self._failed = False

    def key(self, kid: str) -> Any | None:
        """Return the public key with this id; see `KeySource`."""
        found = self._keys.get(kid)
        if found is not None:
            return found
        with self._lock:
            pause = _RETRY_SECONDS if self._failed else _REFETCH_SECONDS
            if kid not in self._keys and self._clock() - self._asked_at >= pause:
                try:
                    self._keys = self._fetch()
                    self._failed = False
                except DependencyUnavailable:
                    logs.get_logger().warning("jwks.unavailable")
                    self._failed = True
                finally:
                    self._asked_at = self._clock()
            if kid not in self._keys and self._failed:  # a new key's token cannot be told from a bad one
                raise DependencyUnavailable("auth-service")
            return self._keys.get(kid)

    def _fetch(self) -> Mapping[str, Any]:
        reply = self._client.get("/auth/.well-known/jwks.json")
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable("auth-service")
        try:
            published = jwt.PyJWKSet.from_dict(reply.body).keys
        except jwt.PyJWTError as error:  # no usable key at all: that is no fault of the token
            raise DependencyUnavailable("auth-service") from error
        return {key.key_id: key.key for key in published if key.key_id}


class Authenticator:
    """Verifies tokens: signature, algorithm, `exp`, `iss`, `aud`.

    Args:
        keys: Where verification keys come from.
        settings: What `iss` and `aud` have to be.
    """

    def __init__(self, keys: KeySource, settings: TokenSettings) -> None:
        self._keys = keys
        self._settings = settings
        self._verified: dict[str, _Verified] = {}

    def verify(self, token: str) -> tuple[Principal, int]:
        """Verify a token.

        Args:
            token: A compact JWS.

        Returns:
            Its user, and its expiry in seconds since the epoch.

        Raises:
            Unauthenticated: It is not valid.
            DependencyUnavailable: The keys could not be had.
        """
        known = self._verified.get(token)
        if known is not None and known.expires_at > time.time() and self._keys.key(known.kid) is known.key:
            return known.principal, known.expires_at
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.key(kid) if isinstance(kid, str) else None
            if kid is None or key is None:
                raise Unauthenticated
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._settings.token_issuer,
                audience=self._settings.token_audience,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
            principal = Principal(int(claims["sub"]), str(claims.get("role", "customer")))
            expires_at = int(claims["exp"])
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated from None
        if len(self._verified) >= _MOST_VERIFIED:
            self._verified.clear()
        self._verified[token] = _Verified(kid, key, principal, expires_at)
        return principal, expires_at

    def required(self, view: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a view: it is called only with a valid token, and `principal()` says whose.

        Goes above `api.validate`: who may not ask at all learns nothing about how to ask.
        """

        @functools.wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            g.principal, g.token_expires_at = self.verify(_bearer_token())
            return view(*args, **kwargs)

        return checked


def authenticator(settings: VerifierSettings, metrics: Metrics, tracer: Tracer) -> Authenticator:
    """Make the authenticator of a service that asks auth-service for the keys."""
    client = ServiceClient("auth-service", settings.auth_url, metrics, tracer, timeout_seconds=2.0, connections=4)
    return Authenticator(JwksClient(client), settings)


def principal() -> Principal:
    """Return whose token the current request carries; only in views under `required`."""
    found: Principal = g.principal
    return found


def _bearer_token() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
        raise Unauthenticated
    return token
