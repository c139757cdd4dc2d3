"""auth-service's routes."""

import functools
from collections.abc import Callable
from typing import Annotated, Literal, ParamSpec, TypeVar

from flask import Blueprint, g, request
from pydantic import Field
from spectree import SpecTree

from auth_service import domain
from auth_service.clients import Users
from auth_service.issuing import Issuer
from auth_service.keys import KeyRing
from auth_service.signals import Signals
from servicekit.identity.auth import Authenticator, principal
from servicekit.identity.passwords import Password
from servicekit.web.errors import DependencyUnavailable
from servicekit.web.openapi import BEARER, Answer, Body, Text, answers

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Credentials(Body):
    """A user's name and password."""

    username: Annotated[Text, Field(min_length=1, max_length=64, examples=["admin"])]
    password: Annotated[Password, Field(examples=["password"])]


class TokenAnswer(Answer):
    """A bearer token (RFC 6750)."""

    token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Lifetime in seconds.")


class ValidToken(Answer):
    """The content of a valid token."""

    valid: bool = True
    user_id: int
    role: str
    expires_at: int = Field(description="Seconds since the epoch.")


class ServiceTokenRequest(Body):
    """A service's request for a token (RFC 6749, section 4.4); `Authorization: Basic` has its name and secret."""

    grant_type: Literal["client_credentials"]
    audience: Annotated[Text, Field(max_length=64, description="The service that it wants to call.")]


class ServiceTokenAnswer(Answer):
    """A token for the internal routes of one service."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Lifetime in seconds.")


class Jwk(Answer):
    """A public RSA key (RFC 7517)."""

    kty: str
    use: str
    alg: str
    kid: str
    n: str
    e: str


class Jwks(Answer):
    """The keys that verify tokens: the signing key, and earlier ones whose tokens may still be valid."""

    keys: list[Jwk]


def blueprint(  # noqa: PLR0913, PLR0917  # what the routes need, by name
    api: SpecTree,
    issuer: Issuer,
    users: Users,
    ring: KeyRing,
    auth: Authenticator,
    signals: Signals,
    ttl_seconds: int,
) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("auth", __name__)

    def for_clients(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            given = request.authorization
            if given is None or given.type != "basic":
                raise domain.ClientRefused
            issuer.identify(given.username or "", given.password or "")
            g.client = given.username
            return view(*args, **kwargs)

        return checked

    @routes.post("/auth/login")
    @api.validate(resp=answers({200: TokenAnswer}, 401, 415, 422), tags=["auth"])
    def login(json: Credentials) -> tuple[TokenAnswer, int, dict[str, str]]:
        """Log in: credentials in, token out."""
        try:
            account = users.check(json.username, json.password)
        except domain.BadCredentials:
            signals.login_rejected()
            raise
        except DependencyUnavailable:
            signals.login_unavailable()
            raise
        answer = TokenAnswer(token=issuer.for_user(account), expires_in=ttl_seconds)
        signals.login_succeeded(account.user_id)
        return answer, 200, {"Cache-Control": "no-store"}

    @routes.get("/auth/validate")
    @auth.required
    @api.validate(resp=answers({200: ValidToken}, 401), security=BEARER, tags=["auth"])
    def validate() -> ValidToken:
        """Return the content of a token if it is valid. This is for clients; services verify tokens themselves."""
        return ValidToken(user_id=principal().user_id, role=principal().role, expires_at=g.token_expires_at)

    @routes.get("/auth/.well-known/jwks.json")
    @api.validate(resp=answers({200: Jwks}), tags=["auth"])
    def jwks() -> tuple[Jwks, int, dict[str, str]]:
        """Publish the keys that verify tokens."""
        return Jwks.model_validate(ring.jwks()), 200, {"Cache-Control": "public, max-age=10"}

    @routes.post("/internal/token")
    @for_clients
    @api.validate(resp=answers({200: ServiceTokenAnswer}, 401, 403, 415, 422))
    def service_token(json: ServiceTokenRequest) -> tuple[ServiceTokenAnswer, int, dict[str, str]]:
        """Give a service a token for its calls to another one. Not reachable through the gateway."""
        token = issuer.for_service(g.client, json.audience)
        return ServiceTokenAnswer(access_token=token, expires_in=ttl_seconds), 200, {"Cache-Control": "no-store"}

    return routes
