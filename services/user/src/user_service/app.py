"""user-service's composition root."""

from flask import Flask

from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import DATABASE, SHOP
from shop.faults import Faults
from user_service import routes
from user_service.domain import BadCredentials, UsernameTaken, UserNotFound
from user_service.passwords import Passwords
from user_service.settings import UserSettings
from user_service.signals import Signals
from user_service.store import Users

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
    kit = Service("user-service", settings, SHOP)
    users = Users(kit.database(settings, DATABASE))
    keys = kit.keys(settings)
    api = kit.api("Register, and look up users.")
    blueprint = routes.blueprint(
        api,
        users,
        Passwords(),
        kit.authenticator(keys, settings),
        kit.callers(keys, settings),
        Signals(kit.metrics, kit.tracer),
    )
    return Faults(kit, settings).spoil(kit.app(api, blueprint, prefix="users", errors=ERRORS))
