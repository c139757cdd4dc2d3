"""auth-service's composition root."""

from flask import Flask

import shop
from auth_service import routes
from auth_service.clients import Users
from auth_service.domain import NAME, BadCredentials, ClientRefused
from auth_service.issuing import Issuer, OwnTokens
from auth_service.keys import KeyRing
from auth_service.settings import AuthSettings
from auth_service.signals import Signals
from servicekit.calls.client import ServiceClient
from servicekit.config import load
from servicekit.identity import auth
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.web.app import create_app as create_service
from servicekit.web.errors import ErrorTable, Problem
from servicekit.web.openapi import create_api, document_blueprint

SERVICE = NAME

ERRORS: ErrorTable = {
    **auth.ERRORS,
    BadCredentials: Problem(
        401,
        "bad-credentials",
        "Wrong credentials",
        headers={"WWW-Authenticate": 'Bearer realm="shop"'},
    ),
    ClientRefused: Problem(
        401,
        "unknown-client",
        "Unknown client",
        headers={"WWW-Authenticate": 'Basic realm="shop"'},
    ),
}


def create_app(settings: AuthSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(AuthSettings)
    metrics = Metrics(enabled=measures())
    telemetry = shop.telemetry(SERVICE, metrics)
    ring = KeyRing(settings.auth_keys_dir, settings.token_ttl_seconds)
    ring.ensure()
    issuer = Issuer(settings, ring)
    users = ServiceClient(
        "user-service",
        settings.user_url,
        metrics,
        telemetry.tracer,
        timeout_seconds=5.0,
        credential=OwnTokens(issuer, "user-service"),
    )
    api = create_api("auth-service", "Log in, and verify what logging in gave.")
    blueprint = routes.blueprint(
        api,
        issuer,
        Users(users),
        ring,
        auth.Authenticator(ring, settings),
        Signals(metrics),
        settings.token_ttl_seconds,
    )
    return create_service(
        SERVICE,
        settings,
        metrics,
        telemetry,
        blueprints=[blueprint, document_blueprint(api, "auth")],
        error_table=ERRORS,
        ready_checks=[ring.check],
    )
