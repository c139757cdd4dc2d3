"""The apps of this process, for what a server does for them beside WSGI: tasks, refusals, a last export.

gunicorn is given one WSGI application. That need not be an app: there may be middleware around it, such as `ProxyFix`,
and several apps behind one, such as `DispatcherMiddleware`. So each app makes itself known when it is instrumented.
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
    """What an app does for its server beside WSGI."""

    def refusal(self, status: HTTPStatus, received: bytes) -> bytes:
        """Answer what is no request."""

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was closed."""


_apps: list[ref[Flask]] = []


def add(app: Flask) -> None:
    """Make an app known, for as long as somebody has it."""
    _apps.append(ref(app, _apps.remove))


def all_apps() -> list[Flask]:
    """Return the apps that are known, in the order in which they were made."""
    return [app for known in list(_apps) if (app := known()) is not None]


def server_side(wsgi: Any) -> Answering:
    """Return what answers for requests that are none.

    Args:
        wsgi: What the server was given: the app itself, or what is around it; then the first app answers.
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
