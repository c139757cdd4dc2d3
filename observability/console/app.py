"""The wiring: pages, guard, filters, and the page for what is not there."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, redirect, request, url_for
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

from observability.console import (
    dashboards,
    faults,
    guard,
    help,  # noqa: A004
    logs,
    orders,
    overview,
    pages,
    show,
    traces,
    why,
)
from observability.console.asking import Apis, Orders
from observability.story.apis import Jaeger, Loki, Prometheus
from observability.story.asking import Limits, limits
from observability.story.errors import LoginNeeded, StoryError
from observability.story.text import LONG, SHORT, clean, one_line
from observability.story.window import CHOICES
from servicekit.telemetry.logs import get_logger

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from observability.console.settings import ConsoleSettings

_MAX_FORM = 16 * 1024
_MAX_ANSWER = 8 * 1024 * 1024
"""Of one question. Read, it takes several times as much, and the container has 128 MiB."""
_PAGE_SECONDS, _POST_SECONDS = 5.0, 20.0
"""How long all questions of a page take at most: with an API that hangs, the page is there soon, and says so."""
MENU = {
    "overview.overview": "Overview",
    "orders.orders": "Orders",
    "traces.search": "Traces",
    "logs.logs": "Logs",
    "dashboards.first": "Dashboards",
    "why.why": "Why",
    "faults.faults": "Faults",
    "help.shown": "Help",
}


def create_app(settings: ConsoleSettings) -> Flask:
    """Make the app."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_FORM
    app.extensions["apis"] = Apis(
        Orders(settings.gateway_url, demo=settings.console_demo_login),
        Jaeger(settings.jaeger_url, settings.jaeger_public_url or settings.jaeger_url),
        Loki(settings.loki_url, settings.loki_public_url or settings.loki_url),
        Prometheus(settings.prometheus_url),
    )
    app.extensions["settings"] = settings
    app.extensions["flags_file"] = settings.flags_file
    guard.protect(app, settings.trusted_hosts)
    for module in (overview, orders, traces, logs, dashboards, why, faults, help):
        app.register_blueprint(module.routes)
    _add_limits(app)
    _add_login(app)
    _add_errors(app)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {
        "clean": clean,
        "short": lambda text: clean(text, SHORT),
        "one_line": one_line,
        "us": show.microseconds,
        "seconds": show.seconds,
        "quantity": show.quantity,
        "iso": show.iso,
        "money": show.money,
        "page": Markup,  # what show.markdown made of a page of ours
    }
    app.jinja_env.globals |= {
        "menu": MENU,
        "ranges": CHOICES,
        "settings": settings,
        "long": LONG,
        "with_args": _with,
        "same_time": pages.same_time,
        "here": pages.here,
        "faults_on": faults.on,
        "new_key": orders.new_key,
        "jaeger": settings.jaeger_public_url or settings.jaeger_url,
    }
    app.jinja_env.tests["hex"] = lambda text: bool(text) and all(each in "0123456789abcdef" for each in str(text))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _with(**changes: Any) -> str:
    """Give this page's address with some of its parameters changed; None takes one away."""
    kept = {name: value for name, value in request.args.items() if name not in changes}
    args = kept | {name: value for name, value in changes.items() if value is not None}
    return url_for(request.endpoint or "overview.overview", **{**(request.view_args or {}), **args})


def _add_limits(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        seconds = _POST_SECONDS if request.method == "POST" else _PAGE_SECONDS
        limits.set(Limits(time.monotonic() + seconds, _MAX_ANSWER))

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        limits.set(None)


def _add_login(app: Flask) -> None:
    @app.get("/login")
    def login() -> str:
        return pages.page("login.html", said="", after=pages.own(request.args.get("after", "/")))

    @app.post("/login")
    def logged_in() -> ResponseReturnValue:
        after = pages.own(request.form.get("after", "/"))
        try:
            token = pages.apis().orders.login(request.form.get("username", ""), request.form.get("password", ""))
        except LoginNeeded as error:
            return pages.page("login.html", said=str(error), after=after), HTTPStatus.UNAUTHORIZED
        except StoryError as error:
            return pages.page("login.html", said=str(error), after=after), HTTPStatus.BAD_GATEWAY
        answer = redirect(after, HTTPStatus.SEE_OTHER)
        answer.set_cookie(pages.TOKEN_COOKIE, token, httponly=True, samesite="Strict", secure=request.is_secure)
        return answer


def _add_errors(app: Flask) -> None:
    @app.errorhandler(LoginNeeded)
    def sign_in(error: LoginNeeded) -> ResponseReturnValue:
        after = pages.here() if request.method == "GET" else pages.own(request.path)
        return pages.page("login.html", said=str(error), after=after), HTTPStatus.UNAUTHORIZED

    @app.errorhandler(StoryError)
    def not_told(error: StoryError) -> ResponseReturnValue:
        missing = str(error).startswith("There is no ")
        status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.BAD_GATEWAY
        return pages.page("error.html", title="Not there" if missing else "Not available", said=str(error)), status

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> ResponseReturnValue:
        if error.code is not None and error.code < HTTPStatus.BAD_REQUEST:
            return error
        said = str(error.description)
        return pages.page("error.html", title=error.name, said=said), error.code or HTTPStatus.INTERNAL_SERVER_ERROR

    @app.errorhandler(Exception)
    def failed(error: Exception) -> ResponseReturnValue:
        get_logger().error("request.failed", route=str(request.url_rule), exc_info=error)
        said = (
            "This page has a fault. The console's log says more: `make logs SERVICE=console`, or `docker compose logs"
            " console`."
        )
        return pages.page("error.html", title="Internal error", said=said), HTTPStatus.INTERNAL_SERVER_ERROR
