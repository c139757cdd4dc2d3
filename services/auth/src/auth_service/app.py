"""auth-service's composition root."""

from flask import Flask

from auth_service import faults, routes
from auth_service.clients import Users
from auth_service.domain import NAME, BadCredentials, ClientRefused
from auth_service.issuing import Issuer, OwnTokens
from auth_service.settings import AuthSettings
from auth_service.signals import Signals
from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import SHOP
from shop.faults import Faults

ERRORS: ErrorTable = {
    **auth.ERRORS,
    BadCredentials: Problem(401, "bad-credentials", "Wrong credentials", challenge="Bearer"),
    ClientRefused: Problem(401, "unknown-client", "Unknown client", challenge="Basic"),
}


def create_app(settings: AuthSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(AuthSettings)
    kit = Service(NAME, settings, SHOP)
    set_faults = Faults(kit, settings, *faults.FLAGS)
    ring = faults.KeyRing(settings.auth_keys_dir, settings.token_ttl_seconds, set_faults)
    ring.ensure()
    kit.ready_when(ring.check)
    issuer = Issuer(settings, ring)
    tokens = OwnTokens(issuer, "user-service")
    users = Users(kit.client("user-service", settings.user_url, timeout_seconds=5.0, credential=tokens))
    api = kit.api("Log in, and verify what logging in gave.")
    asking = kit.authenticator(ring, settings)
    blueprint = routes.blueprint(api, issuer, users, ring, asking, Signals(kit.metrics), settings.token_ttl_seconds)
    return set_faults.spoil(kit.app(api, blueprint, prefix="auth", errors=ERRORS))
