"""What the test of flags after a fork runs: a service that has asked for a flag before the fork."""

from flask import Blueprint

from servicekit.config import load
from servicekit.flags import FlagSettings
from servicekit.service import Service


def create_app():
    """For gunicorn."""
    kit = Service("flagged-service")
    flags = kit.flags(load(FlagSettings))
    flags.value("delay", 0)
    routes = Blueprint("flagged", __name__)

    @routes.get("/value")
    def value():
        return {"value": flags.value("delay", 0)}

    return kit.app(kit.api("Says what a flag's value is."), routes, prefix="flagged")
