"""Authentication: verifies tokens in the service itself, with the public keys of the authority that signs them."""

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from flask import g, request

from servicekit.calls.client import ServiceClient
from servicekit.config import TokenSettings
from servicekit.process.background import Periodic
from servicekit.telemetry import logs, tracing
from servicekit.web.errors import UNAUTHENTICATED, DependencyUnavailable, ErrorTable, Problem

ALGORITHM = "RS256"
"""The only accepted algorithm. Each request verifies a token and only a login signs one; RSA verifies fastest."""

REFRESH_SECONDS = 20.0
"""The interval at which keys are fetched again in the background. A revoked key may be accepted for that long."""

REFETCH_SECONDS = 10.0
"""The least time between two fetches because of an unknown `kid`, so that invented ones cause no load."""

_NEEDED = "This needs a valid bearer token"
_LOOK_SECONDS = 1.0  # between two checks whether a fetch is due
_FIRST_SECONDS = 5.0  # between two tries while there are no keys yet
_MAX_AGE_SECONDS = 60.0  # if the background task did not run (frozen process), the next request fetches them
_RETRY_SECONDS = 1.0  # after a failure, so that requests do not all wait for an authority that hangs
_MAX_TOKEN = 4096
_MOST_VERIFIED = 1024  # cached tokens; with _MAX_TOKEN, at most 4 MB
_T = TypeVar("_T")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Unauthenticated(Exception):  # noqa: N818
    """There is no valid token. The message does not say what is wrong with it."""

    def __init__(self, detail: str = f"{_NEEDED}.") -> None:
        super().__init__(detail)


class Forbidden(Exception):  # noqa: N818
    """The token is valid, but its owner is not allowed to do this."""

    def __init__(self, detail: str = "Your role does not allow this.") -> None:
        super().__init__(detail)


ERRORS: ErrorTable = {
    Unauthenticated: Problem(
        HTTPStatus.UNAUTHORIZED,
        UNAUTHENTICATED,
        "No valid token",
        challenge="Bearer",
    ),
    Forbidden: Problem(HTTPStatus.FORBIDDEN, "forbidden", "Not allowed"),
}


@dataclass(frozen=True)
class Principal:
    """The user whose token a request carries.

    Attributes:
        user_id: The user's id.
        role: The token's role; an `admin` may see the data of all users.
    """

    user_id: int
    role: str

    @property
    def is_admin(self) -> bool:
        """Whether this user may see the data of all users."""
        return self.role == "admin"


@dataclass(frozen=True)
class _Verified(Generic[_T]):
    """The cached content of a verified token. It is valid while its key is published and it has not expired.

    A client sends the same token many times, and verifying a signature takes longer than reading a database row.
    """

    kid: str
    key: Any
    owner: _T
    expires_at: int


class KeySource(Protocol):
    """Gives verification keys."""

    def key(self, kid: str) -> Any | None:
        """Return the public key with this id, None if there is none.

        Raises:
            DependencyUnavailable: The keys could not be had.
        """


class JwksClient:
    """The authority's keys. `task` fetches them periodically; a request fetches them if its `kid` is unknown.

    So a key that is no longer published is forgotten. While the authority does not answer, or answers without a usable
    key, the last known keys stay valid for a limited time.

    Args:
        client: A client of the authority.
        clock: Monotonic time in seconds, for tests.
        kept_seconds: How many seconds keys stay valid while they cannot be fetched again.
        path: The path at which they are published.
    """

    def __init__(
        self,
        client: ServiceClient,
        clock: Callable[[], float] = time.monotonic,
        kept_seconds: float = 3600.0,
        *,
        path: str = "/.well-known/jwks.json",
    ) -> None:
        self._client = client
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._path = path
        self._lock = threading.Lock()
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._had_at = self._asked_at = self._guessed_at = float("-inf")
        self._failed = False

    def key(self, kid: str) -> RSAPublicKey | None:
        """Return the public key with this id; see `KeySource`."""
        found = self._keys.get(kid)
        now = self._clock()
        if found is not None and now - self._asked_at < _MAX_AGE_SECONDS and now - self._had_at < self._kept_seconds:
            return found
        with self._lock:
            self._fetch_if_due(kid)
            found = self._keys.get(kid)
            # No answer: keys that are too old do not count, and an unknown `kid` may be a new key or an invalid token.
            if self._failed and (found is None or self._clock() - self._had_at >= self._kept_seconds):
                raise DependencyUnavailable(self._client.peer)
            return found

    def task(self) -> Periodic:
        """Return the background task that fetches the keys periodically."""
        return Periodic("jwks", _LOOK_SECONDS, self._refresh)

    def _refresh(self, _stopping: Callable[[], bool]) -> None:
        pause = _FIRST_SECONDS if self._had_at == float("-inf") else REFRESH_SECONDS - _LOOK_SECONDS
        with self._lock:
            if self._clock() - self._asked_at >= pause:
                with tracing.unsampled():
                    self._fetch()

    def _fetch_if_due(self, kid: str) -> None:
        now = self._clock()
        if self._failed:
            due = now - self._asked_at >= (_MAX_AGE_SECONDS if self._counts(kid, now) else _RETRY_SECONDS)
        elif kid in self._keys:
            due = now - self._asked_at >= _MAX_AGE_SECONDS
        else:
            due = now - self._guessed_at >= REFETCH_SECONDS
            self._guessed_at = now if due else self._guessed_at
        if due:
            self._fetch()

    def _counts(self, kid: str, now: float) -> bool:
        return kid in self._keys and now - self._had_at < self._kept_seconds

    def _fetch(self) -> None:
        try:
            reply = self._client.get(self._path)
            if reply.status != HTTPStatus.OK:
                raise DependencyUnavailable(self._client.peer)
            published = _usable(reply.body)
            if not published:
                raise DependencyUnavailable(self._client.peer)
        except DependencyUnavailable:
            logs.get_logger().warning("jwks.unavailable")
            self._failed = True
        else:
            # A known key stays the same object, because cached tokens refer to it.
            known = self._keys
            self._keys = {kid: known[kid] if known.get(kid) == key else key for kid, key in published.items()}
            self._had_at = self._clock()
            self._failed = False
        finally:
            self._asked_at = self._clock()


def _usable(jwks: object) -> Mapping[str, RSAPublicKey]:
    """Return the keys of a JWK Set (RFC 7517) that can verify our tokens; ignore all others."""
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    keys = {}
    for jwk in listed if isinstance(listed, list) else []:
        if not isinstance(jwk, dict) or jwk.get("alg", ALGORITHM) != ALGORITHM or jwk.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(jwk, ALGORITHM).key
        except (jwt.PyJWTError, TypeError, ValueError):
            continue
        if isinstance(key, RSAPublicKey) and isinstance(jwk.get("kid"), str):
            keys[jwk["kid"]] = key
    return keys


class _Verifier(Generic[_T]):
    """Verifies tokens: signature, algorithm, `exp`, `iss`, `aud`.

    Args:
        keys: Gives the verification keys.
        issuer: The `iss` that a token must have.
        audience: The `aud` that a token must have.
        read: Returns the token's owner from its claims; raises ValueError if they name none.
        refusal: The message for a client whose token is not valid.
    """

    def __init__(
        self, keys: KeySource, issuer: str, audience: str, read: Callable[[Mapping[str, Any]], _T], refusal: str
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._read = read
        self._refusal = refusal
        self._verified: dict[str, _Verified[_T]] = {}

    def verify(self, token: str) -> tuple[_T, int]:
        """Verify a token.

        Args:
            token: A compact JWS.

        Returns:
            Its owner, and its expiry time in seconds since the epoch.

        Raises:
            Unauthenticated: It is not valid.
            DependencyUnavailable: The keys could not be had.
        """
        known = self._verified.get(token)
        if known is not None and known.expires_at > time.time() and self._keys.key(known.kid) is known.key:
            return known.owner, known.expires_at
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.key(kid) if isinstance(kid, str) else None
            if kid is None or key is None:
                raise Unauthenticated(self._refusal)
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
            owner = self._read(claims)
            expires_at = int(claims["exp"])
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated(self._refusal) from None
        if len(self._verified) >= _MOST_VERIFIED:
            self._verified.clear()
        self._verified[token] = _Verified(kid, key, owner, expires_at)
        return owner, expires_at


class Authenticator(_Verifier[Principal]):
    """Verifies users' tokens.

    Args:
        keys: Gives the verification keys.
        settings: The `iss` and `aud` that a token must have.
        login: How to get a token, such as `get one from POST /login`; part of the answer to a request without one.
    """

    def __init__(self, keys: KeySource, settings: TokenSettings, login: str = "") -> None:
        refusal = f"{_NEEDED}: {login}." if login else f"{_NEEDED}."
        super().__init__(keys, settings.token_issuer, settings.token_audience, _principal, refusal)

    def required(self, view: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a view so that it needs a valid token; in the view, `principal()` returns the token's owner.

        Put it above `api.validate`, so that a client without a token gets 401 and no validation errors.
        """

        @functools.wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            g.principal, g.token_expires_at = self.verify(_bearer_token())
            return view(*args, **kwargs)

        return checked


class Callers(_Verifier[str]):
    """Verifies the tokens of other services that call this one's internal routes.

    The authority signs them, like users' tokens, with the called service as audience (`aud`) and the caller as `sub`.
    So a user's token is not accepted on an internal route, and a service's token on no other route.

    Args:
        keys: Gives the verification keys.
        settings: The `iss` that a token must have.
        service: This service's name.
    """

    def __init__(self, keys: KeySource, settings: TokenSettings, service: str) -> None:
        super().__init__(
            keys,
            settings.token_issuer,
            service,
            lambda claims: str(claims["sub"]),
            "This route is for other services, which have tokens of their own.",
        )

    def only(self, *callers: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
        """Decorate an internal view so that only these services may call it. Put it above `api.validate`."""

        def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
            @functools.wraps(view)
            def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
                caller, _ = self.verify(_bearer_token())
                if caller not in callers:
                    raise Forbidden("This route is for other services than yours.")
                return view(*args, **kwargs)

            return checked

        return decorate


def principal() -> Principal:
    """Return the owner of the current request's token; only in views decorated with `required`."""
    found: Principal = g.principal
    return found


def _principal(claims: Mapping[str, Any]) -> Principal:
    return Principal(int(claims["sub"]), str(claims.get("role", "")))


def _bearer_token() -> str:
    """Return the request's token, or a text that is never valid if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and len(token) <= _MAX_TOKEN else ""
