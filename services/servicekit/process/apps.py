"""A registry of this process's apps. The server needs it for what WSGI does not cover: tasks, refusals, a last export.

gunicorn has one WSGI application, which need not be a Flask app. It may be middleware around an app, such as
`ProxyFix`, or in front of several apps, such as `DispatcherMiddleware`. So each app is registered when it is
instrumented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterable
    from http import HTTPStatus

    from flask import Flask

    from servicekit.process.background import Periodic
    from servicekit.telemetry.setup import Telemetry


class Answering(Protocol):
    """What a server calls an app for, in addition to WSGI."""

    def refusal(self, status: HTTPStatus, received: bytes) -> bytes:
        """Return the answer to data that is not a valid request."""

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was closed."""


_apps: list[ref[Flask]] = []


def add(app: Flask) -> None:
    """Register an app. The registry does not keep it alive."""
    _apps.append(ref(app, _apps.remove))


def all_apps() -> list[Flask]:
    """Return the registered apps, in the order in which they were created."""
    return [app for known in list(_apps) if (app := known()) is not None]


def server_side(wsgi: Any) -> Answering:
    """Return the object that answers invalid requests.

    Args:
        wsgi: The server's WSGI application. If it is not an app but middleware, the first app answers.
    """
    apps = all_apps()
    if not apps:
        raise RuntimeError("No app here is one of servicekit's: have `Service` make it, or instrument it.")
    side: Answering = next((app for app in apps if app is wsgi), apps[0]).extensions["server"]
    return side


def tasks() -> Iterable[Periodic]:
    """Return the background tasks of all apps."""
    return [task for app in all_apps() for task in app.extensions["tasks"]]


def telemetries() -> Iterable[Telemetry]:
    """Return the tracing of all apps."""
    return [app.extensions["telemetry"] for app in all_apps()]
