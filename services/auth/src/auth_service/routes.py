"""auth-service's routes."""

import time
from typing import Annotated

import jwt
from flask import Blueprint, g
from pydantic import Field
from spectree import SpecTree

from auth_service import domain
from auth_service.clients import Users
from auth_service.keys import KeyRing
from auth_service.settings import AuthSettings
from auth_service.signals import Signals
from servicekit.api import BEARER, Answer, Body, Text, answers
from servicekit.auth import ALGORITHM, Authenticator, principal
from servicekit.errors import DependencyUnavailable


class Credentials(Body):
    """What a user knows."""

    username: Annotated[Text, Field(min_length=1, max_length=64, examples=["admin"])]
    password: Annotated[Text, Field(min_length=1, max_length=128, examples=["password"])]


class TokenAnswer(Answer):
    """A bearer token (RFC 6750)."""

    token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Lifetime in seconds.")


class ValidToken(Answer):
    """What a valid token says."""

    valid: bool = True
    user_id: int
    role: str
    expires_at: int = Field(description="Seconds since the epoch.")


class Jwk(Answer):
    """A public RSA key (RFC 7517)."""

    kty: str
    use: str
    alg: str
    kid: str
    n: str
    e: str


class Jwks(Answer):
    """The keys that verify tokens: the one that signs, and those that signed what may still be valid."""

    keys: list[Jwk]


def blueprint(  # noqa: PLR0913, PLR0917  # what the routes need, by name
    api: SpecTree, settings: AuthSettings, users: Users, ring: KeyRing, auth: Authenticator, signals: Signals
) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("auth", __name__)

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
        claims = domain.claims(
            account,
            issuer=settings.token_issuer,
            audience=settings.token_audience,
            now=int(time.time()),
            ttl_seconds=settings.token_ttl_seconds,
        )
        key = ring.signing_key()
        token = jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.kid})
        signals.login_succeeded(account.user_id)
        answer = TokenAnswer(token=token, expires_in=settings.token_ttl_seconds)
        return answer, 200, {"Cache-Control": "no-store"}

    @routes.get("/auth/validate")
    @auth.required
    @api.validate(resp=answers({200: ValidToken}, 401), security=BEARER, tags=["auth"])
    def validate() -> ValidToken:
        """Say what a token says, if it is valid. The services verify tokens themselves; this is for clients."""
        return ValidToken(user_id=principal().user_id, role=principal().role, expires_at=g.token_expires_at)

    @routes.get("/auth/.well-known/jwks.json")
    @api.validate(resp=answers({200: Jwks}), tags=["auth"])
    def jwks() -> tuple[Jwks, int, dict[str, str]]:
        """Publish the keys that verify tokens."""
        return Jwks.model_validate(ring.jwks()), 200, {"Cache-Control": "public, max-age=10"}

    return routes
