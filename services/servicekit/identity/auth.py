"""Who is asking: tokens verified here, in the service, with the published keys of the authority that signs them."""

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
"""The one algorithm accepted. RS256: every request verifies, only a login signs, and RSA verifies fastest."""

REFRESH_SECONDS = 20.0
"""Keys in use are fetched again so often, in the background: so long may one that is withdrawn still count."""

REFETCH_SECONDS = 10.0
"""An unknown `kid` is a new key, or somebody's guess: guesses must not become load on the authority."""

_NEEDED = "This needs a valid bearer token"
_LOOK_SECONDS = 1.0  # between two looks whether it is time
_FIRST_SECONDS = 5.0  # between two tries to get any at all
_MAX_AGE_SECONDS = 60.0  # where the background did not get to it (a process was frozen), the next request fetches them
_RETRY_SECONDS = 1.0  # after a failure; requests must not queue up, each to wait for an authority that hangs
_MAX_TOKEN = 4096
_MOST_VERIFIED = 1024  # tokens remembered: with _MAX_TOKEN, 4 MB
_T = TypeVar("_T")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Unauthenticated(Exception):  # noqa: N818
    """There is no valid token. The message is the same whatever is wrong with it."""

    def __init__(self, detail: str = f"{_NEEDED}.") -> None:
        super().__init__(detail)


class Forbidden(Exception):  # noqa: N818
    """The token is valid, but its owner may not do this."""

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
        role: What the token says; `admin` may see what belongs to others.
    """

    user_id: int
    role: str

    @property
    def is_admin(self) -> bool:
        """Whether this user may see what belongs to others."""
        return self.role == "admin"


@dataclass(frozen=True)
class _Verified(Generic[_T]):
    """What a token said whose signature was right: as long as its key is published and it has not expired, it still is.

    A client sends the same one again and again, and checking a signature takes longer than reading a row.
    """

    kid: str
    key: Any
    owner: _T
    expires_at: int


class KeySource(Protocol):
    """Where verification keys come from."""

    def key(self, kid: str) -> Any | None:
        """Return the public key with this id, None if there is none.

        Raises:
            DependencyUnavailable: The keys could not be had.
        """


class JwksClient:
    """The authority's keys: fetched by `task` again and again, and when an unknown `kid` turns up or there are none.

    A key that is published no more is thus forgotten. While the authority does not answer, or with no usable key, the
    keys last had go on to count, for a bounded time.

    Args:
        client: A client of the authority.
        clock: Seconds, for tests. They go on whatever happens to the time of day.
        kept_seconds: How long keys count that could not be fetched again.
        path: Where they are published.
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
            # Without an answer, too old keys are none, and a new key's token cannot be told from a bad one.
            if self._failed and (found is None or self._clock() - self._had_at >= self._kept_seconds):
                raise DependencyUnavailable(self._client.peer)
            return found

    def task(self) -> Periodic:
        """Return the background task that keeps the keys fresh."""
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
            # A key that was there before stays the same object: tokens that it has verified are remembered with it.
            known = self._keys
            self._keys = {kid: known[kid] if known.get(kid) == key else key for kid, key in published.items()}
            self._had_at = self._clock()
            self._failed = False
        finally:
            self._asked_at = self._clock()


def _usable(jwks: object) -> Mapping[str, RSAPublicKey]:
    """Return the keys of a JWK Set (RFC 7517) that can verify our tokens. What else is in it is left out."""
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
        keys: Where verification keys come from.
        issuer: What `iss` has to be.
        audience: What `aud` has to be.
        read: Makes of the claims whose token it is; a ValueError says that it is nobody's.
        refusal: What a client is told whose token is none.
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
            Its owner, and its expiry in seconds since the epoch.

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
        keys: Where verification keys come from.
        settings: What `iss` and `aud` have to be.
        login: How to get a token, such as `get one from POST /login`; it is told to who has none.
    """

    def __init__(self, keys: KeySource, settings: TokenSettings, login: str = "") -> None:
        refusal = f"{_NEEDED}: {login}." if login else f"{_NEEDED}."
        super().__init__(keys, settings.token_issuer, settings.token_audience, _principal, refusal)

    def required(self, view: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a view: it is called only with a valid token, and `principal()` says whose.

        Goes above `api.validate`: who may not ask at all learns nothing about how to ask.
        """

        @functools.wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            g.principal, g.token_expires_at = self.verify(_bearer_token())
            return view(*args, **kwargs)

        return checked


class Callers(_Verifier[str]):
    """Verifies the tokens of other services that call this one's internal routes.

    They are the authority's, as users' are, with the called service as their audience and the caller as `sub`. So a
    user's token opens no internal route, and a service's token no public one, nor another service's.

    Args:
        keys: Where verification keys come from.
        settings: What `iss` has to be.
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
        """Decorate an internal view: it is for these services. Goes above `api.validate`, as `required` does."""

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
    """Return whose token the current request carries; only in views under `required`."""
    found: Principal = g.principal
    return found


def _principal(claims: Mapping[str, Any]) -> Principal:
    return Principal(int(claims["sub"]), str(claims.get("role", "")))


def _bearer_token() -> str:
    """Return the request's token; what verifies nowhere if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and len(token) <= _MAX_TOKEN else ""
