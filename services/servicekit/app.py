"""What makes a plain Flask app a service: context, access log, RED metrics, health, errors."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

from flask import Blueprint, Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider

from servicekit import errors, logs, tracing
from servicekit.background import Periodic
from servicekit.config import ServiceSettings
from servicekit.errors import DependencyUnavailable, ErrorTable
from servicekit.metrics import OTHER_METHOD, Metrics, known_method
from servicekit.telemetry import Telemetry

MAX_BODY = 64 * 1024
UNMATCHED = "unmatched"
"""Stands for every path that has no route."""

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(  # noqa: PLR0913  # what makes a service, by name
    service: str,
    settings: ServiceSettings,
    metrics: Metrics,
    telemetry: Telemetry,
    *,
    blueprints: Sequence[Blueprint],
    error_table: ErrorTable,
    ready_checks: Sequence[Callable[[], None]] = (),
    tasks: Sequence[Periodic] = (),
) -> Flask:
    """Put a service's routes into an app with everything that is the same in all of them.

    Args:
        service: Its name, such as `order-service`.
        settings: Its settings; here, how much it takes on at once.
        metrics: Its metrics.
        telemetry: Its tracing, which the server's worker shuts down.
        blueprints: Its routes.
        error_table: Its errors and their statuses.
        ready_checks: Each raises DependencyUnavailable while the service cannot serve for want of something.
        tasks: Background work, which the server's worker starts and stops (see `gunicorn_conf`).

    Returns:
        The app.
    """
    app = Flask(service, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # a path has one spelling: `/orders//1` is not found, not redirected
    assert isinstance(app.json, DefaultJSONProvider)  # noqa: S101
    app.json.sort_keys = False
    app.extensions["tasks"] = list(tasks)
    app.extensions["telemetry"] = telemetry
    telemetry.instrument(app)  # first: what follows runs inside the request's span
    _instrument(app, metrics)
    _admit(app, metrics, _Admission(settings))
    errors.register(app, error_table)
    app.register_blueprint(_operations(metrics, ready_checks))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


class _Admission:
    """Lets so many requests work at once and so many wait, for so long; refuses the rest while refusing is cheap.

    Probes are let through: a service whose threads all wait for the database is alive, and has to be seen to be.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._working = threading.BoundedSemaphore(settings.threads)
        self._waiting = threading.BoundedSemaphore(settings.queue_length) if settings.queue_length else None
        self._wait_seconds = settings.queue_wait_seconds

    def enter(self) -> bool:
        """Say whether the request may work now, after waiting for its turn if there is room to wait."""
        if self._working.acquire(blocking=False):
            return True
        if self._waiting is None or not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._working.acquire(timeout=self._wait_seconds)
        finally:
            self._waiting.release()

    def leave(self) -> None:
        """Make room for the next one."""
        self._working.release()


def _instrument(app: Flask, metrics: Metrics) -> None:
    log = logs.get_logger()

    @app.before_request
    def begin() -> None:
        g.route = route_template(app)
        if tracing.current_ids() is None:  # a probe, or nothing is recorded at all
            g.context_token = tracing.begin(
                {name: request.headers[name] for name in tracing.HEADERS if name in request.headers}
            )
        _describe_request(app.name)
        g.started = time.perf_counter()
        metrics.request_began()

    @app.after_request
    def finish(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        method = known_method(request.method)
        metrics.request_ended(method, g.route, response.status_code, seconds)
        if (traceresponse := tracing.traceparent()) is not None:
            response.headers["traceresponse"] = traceresponse
        if g.route not in _PROBES:  # they would be most of the log, and metrics count them
            log.info(
                "request.completed",
                method=method,
                http_route=g.route,
                status=response.status_code,
                duration_s=round(seconds, 6),
            )
        return response

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        if (error_type := g.pop("error_type", None)) is not None:
            tracing.failed(error_type)
        if g.pop("started", None) is not None:
            metrics.request_left()
        if (token := g.pop("context_token", None)) is not None:
            tracing.end(token)


def _admit(app: Flask, metrics: Metrics, admission: _Admission) -> None:
    @app.before_request
    def enter() -> Response | None:
        if g.route in _PROBES:
            return None
        g.admitted = admission.enter()
        if g.admitted:
            return None
        metrics.request_rejected()
        return errors.problem_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "overloaded",
            "Too many requests",
            f"{app.name} has more to do than it can. Try again in a moment.",
            headers=errors.RETRY_AFTER,
        )

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        if g.pop("admitted", False):
            admission.leave()


def _describe_request(service: str) -> None:
    """Name the request's span after the route, and put our own words where the client's were.

    The instrumentation takes the server's address from the Host header, and the name of what has no route from the
    path. Neither is the client's to choose.
    """
    method = known_method(request.method)
    name = "HTTP" if method == OTHER_METHOD else method
    attributes = {"http.request.method": method, "server.address": service}
    if g.route != UNMATCHED:
        name = f"{name} {g.route}"
        attributes["http.route"] = g.route
    tracing.describe(name, attributes)


def _operations(metrics: Metrics, ready_checks: Sequence[Callable[[], None]]) -> Blueprint:
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz")
    def healthz() -> dict[str, str]:
        """Alive: the process answers. Depends on nothing, so that a dead database restarts no service."""
        return {"status": "ok"}

    @blueprint.get("/readyz")
    def readyz() -> Response | dict[str, str]:
        """Ready: what this service itself needs is there. Other services are not asked: they answer for themselves."""
        for check in ready_checks:
            try:
                check()
            except DependencyUnavailable as error:
                return errors.problem_response(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "not-ready",
                    "Not ready",
                    str(error),
                    headers=errors.RETRY_AFTER,
                )
        return {"status": "ready"}

    @blueprint.get("/metrics")
    def expose() -> Response:
        body, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    return blueprint


def route_template(app: Flask) -> str:
    """Return the current request's route as OpenAPI writes it, `/orders/{order_id}`, or `unmatched`.

    It is the one form in which a path may appear in a log line, a metric or a span.
    """
    rule = request.url_rule
    if rule is None:
        return UNMATCHED
    templates: dict[str, str] = app.extensions.setdefault("route_templates", {})
    template = templates.get(rule.rule)
    if template is None:
        template = templates[rule.rule] = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
    return template
