"""user-service's composition root."""

from flask import Flask

import shop
from servicekit.config import load
from servicekit.database.pool import Database
from servicekit.identity import auth
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.web.app import create_app as create_service
from servicekit.web.errors import ErrorTable, Problem
from servicekit.web.openapi import create_api, document_blueprint
from user_service import routes
from user_service.domain import BadCredentials, UsernameTaken, UserNotFound
from user_service.passwords import Passwords
from user_service.settings import UserSettings
from user_service.signals import Signals
from user_service.store import Users

SERVICE = "user-service"

ERRORS: ErrorTable = {
    **auth.ERRORS,
    UserNotFound: Problem(404, "user-not-found", "No such user"),
    UsernameTaken: Problem(409, "username-taken", "Username taken"),
    BadCredentials: Problem(401, "bad-credentials", "Wrong credentials"),
}


def create_app(settings: UserSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(UserSettings)
    metrics = Metrics(enabled=measures())
    telemetry = shop.telemetry(SERVICE, metrics)
    tracer = telemetry.tracer
    database = Database(settings, SERVICE, metrics, tracer)
    keys = auth.jwks_client(settings, metrics, tracer)
    api = create_api("user-service", "Register, and look up users.")
    blueprint = routes.blueprint(
        api,
        Users(database),
        Passwords(),
        auth.Authenticator(keys, settings),
        auth.Callers(keys, settings, SERVICE),
        Signals(metrics, tracer),
    )
    return create_service(
        SERVICE,
        settings,
        metrics,
        telemetry,
        blueprints=[blueprint, document_blueprint(api, "users")],
        error_table=ERRORS,
        ready_checks=[database.ping],
        tasks=[keys.task()],
    )
