"""Turns a Flask app into a service: trace context, request log, RED metrics, health checks, errors."""

import functools
import io
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, abort, has_request_context, request
from flask.globals import request_ctx
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.routing import RequestRedirect, Rule

from servicekit.config import MAX_BODY, ServiceSettings
from servicekit.process import apps
from servicekit.process.background import Periodic
from servicekit.telemetry import logs, tracing
from servicekit.telemetry.metrics import OTHER_METHOD, Metrics, known_method
from servicekit.telemetry.setup import Telemetry
from servicekit.web import errors
from servicekit.web.errors import DependencyUnavailable, ErrorTable
from servicekit.web.hosts import Hosts

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

UNMATCHED = "unmatched"
"""The route of all requests whose path has no route."""

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
# Our own keys in a request's environment.
_ROUTE, _STARTED, _ADMITTED = "servicekit.route", "servicekit.started", "servicekit.admitted"
_REFUSED, _IDENTITY, _OF = "servicekit.refused", "servicekit.identity", "servicekit.identity_of"


def make_app(  # noqa: PLR0913  # what makes a service, by name
    service: str,
    settings: ServiceSettings,
    metrics: Metrics,
    telemetry: Telemetry,
    *,
    application: str | None = None,
    blueprints: Sequence[Blueprint],
    error_table: ErrorTable,
    ready_checks: Sequence[Callable[[], None]] = (),
    tasks: Sequence[Periodic] = (),
) -> Flask:
    """Create an app with a service's routes and everything that all services have in common.

    Args:
        service: The service's name, such as `parcel-service`.
        settings: Its limits on concurrent and waiting requests.
        metrics: Its metrics.
        telemetry: Its tracing, which the server's worker shuts down.
        application: The application's name, which appears in errors; by default the service's name.
        blueprints: Its routes.
        error_table: Its errors and their statuses.
        ready_checks: Functions that raise DependencyUnavailable while a dependency of the service is unavailable.
        tasks: Background tasks, which the server's worker starts and stops (see `gunicorn_conf`).

    Returns:
        The app.
    """
    app = Flask(service, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # `/parcels//1` is not found instead of redirected
    assert isinstance(app.json, DefaultJSONProvider)  # noqa: S101
    app.json.sort_keys = False
    instrument(app, service, metrics, telemetry, application=application, ready_checks=ready_checks, tasks=tasks)
    _Door(app, service, metrics, _Admission(settings), Hosts(service, settings.trusted_hosts))
    errors.register(app, error_table)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def instrument(  # noqa: PLR0913
    app: Flask,
    service: str,
    metrics: Metrics,
    telemetry: Telemetry,
    *,
    application: str | None = None,
    ready_checks: Sequence[Callable[[], None]] = (),
    tasks: Sequence[Periodic] = (),
) -> None:
    """Add to an app: spans, metrics, a log line for each request, and `/healthz`, `/readyz` and `/metrics`.

    Its other answers are not changed. Call it before other hooks are registered, so that they run inside the request's
    span. The arguments are those of `make_app`.
    """
    app.extensions[errors.APPLICATION] = application or service
    app.extensions["tasks"] = tasks
    app.extensions["telemetry"] = telemetry
    app.extensions["server"] = ServerSide(app, service, metrics)
    app.log_exception = _log_exception  # type: ignore[method-assign]  # Flask's own quotes the path
    apps.add(app)
    telemetry.instrument(app)
    _Requests(app, service, metrics)
    app.register_blueprint(_operations(metrics, ready_checks))


class _Admission:
    """Limits how many requests run, how many wait, and for how long. Rejects the rest early, which is cheap.

    Probes are not limited: if all threads wait for the database, the service is still alive and has to say so.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._working = threading.BoundedSemaphore(settings.threads)
        self._waiting = threading.BoundedSemaphore(settings.queue_length) if settings.queue_length else None
        self._wait_seconds = settings.queue_wait_seconds

    def enter(self) -> bool:
        """Return whether the request may run, after waiting for its turn if the queue is not full."""
        if self._working.acquire(blocking=False):
            return True
        if self._waiting is None or not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._working.acquire(timeout=self._wait_seconds)
        finally:
            self._waiting.release()

    def leave(self) -> None:
        """Let the next request run."""
        self._working.release()


class ServerSide:
    """What the server's worker needs of an app in addition to WSGI. It is `extensions["server"]` of the app.

    Args:
        app: The app.
        service: The service's name.
        metrics: Where connections are counted.
    """

    def __init__(self, app: Flask, service: str, metrics: Metrics) -> None:
        self._app = app
        self._service = service
        self._metrics = metrics

    def refusal(self, status: HTTPStatus, received: bytes) -> bytes:
        """Answer data that is not a valid request, with a span, metrics and a log line as for a valid one.

        Args:
            status: The status of the answer.
            received: The received bytes. Only the method and the trace context are used, if they are valid.

        Returns:
            The bytes of the answer. The server has to close the connection after sending them.
        """
        head = received.partition(b"\r\n\r\n")[0]
        environ = {
            "REQUEST_METHOD": known_method(head.lstrip().partition(b" ")[0].decode("latin-1")),
            "PATH_INFO": "*",  # matches no route
            "SERVER_NAME": self._service,
            "SERVER_PORT": "0",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            _REFUSED: status,
        }
        for name in tracing.header_names():
            given = re.findall(rb"(?im)^%s:[ \t]*([\x20-\x7e]*?)[ \t]*\r?$" % re.escape(name.encode()), head)
            if len(given) == 1:
                environ[tracing.header_variable(name)] = given[0].decode()
        answer = Response.from_app(self._app, environ)
        answer.headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in answer.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.get_data()

    def connection_cut(self, reason: str) -> None:
        """Count a connection that the server closed because of its client."""
        self._metrics.connection_cut(reason)


def _log_exception(exc_info: Any) -> None:
    """Log an exception that no handler handled, without the path, which Flask's own method quotes."""
    request.environ.setdefault(errors.TYPE, exc_info[0].__qualname__)  # the instrumentation adds the event to the span
    logs.get_logger().error("request.failed", exc_info=exc_info)


class _Requests:
    """Spans, metrics and log lines of requests. It uses Flask's hooks where possible, and wraps the WSGI app elsewhere.

    If a hook fails, Flask runs no further ones, and it runs teardown hooks again for each copy of the request context.
    But what was acquired for a request has to be released exactly once. So that is done around the WSGI app.

    Args:
        app: The app.
        service: The service's name.
        metrics: Where requests are counted.
    """

    def __init__(self, app: Flask, service: str, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._log = logs.get_logger()
        self._described = functools.lru_cache(1024)(self._describe)
        app.before_request(self._begin)
        app.before_request(self._refuse)
        app.teardown_request(self._forget_identity)
        app.wsgi_app = self._around(app.wsgi_app)  # type: ignore[assignment, method-assign]  # as Flask documents it

    def _around(self, inner: "WSGIApplication") -> "WSGIApplication":
        def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
                told = self._tell(int(status[:3]), headers, environ)
                return start_response(status, told, exc_info)

            environ[_STARTED] = time.perf_counter()
            self._metrics.request_began()
            before = tracing.mark()
            try:
                return inner(environ, start)
            except BaseException:  # also raised by a teardown hook; then the span is still open
                tracing.abandon(before)
                raise
            finally:
                self._metrics.request_left()

        return serve

    def _begin(self) -> None:
        environ = request.environ
        route = environ[_ROUTE] = route_template(request.url_rule)
        if tracing.current_ids() is None:  # a probe, or tracing is off
            environ[_IDENTITY] = tracing.identity(environ).__enter__()
            environ[_OF] = request_ctx._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        else:
            tracing.describe(*self._described(known_method(environ["REQUEST_METHOD"]), route))

    @staticmethod
    def _refuse() -> None:
        if (refused := request.environ.get(_REFUSED)) is not None:
            abort(refused)

    def _describe(self, method: str, route: str) -> tuple[str, dict[str, str]]:
        """Name a request's span after the route; replace the client's method, path and Host by known values."""
        name = "HTTP" if method == OTHER_METHOD else method
        attributes = {"http.request.method": method, "server.address": self._service}
        if route != UNMATCHED:
            name = f"{name} {route}"
            attributes["http.route"] = route
        return name, attributes

    def _tell(self, status: int, headers: list[tuple[str, str]], environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        """Count and log the answer when its head is sent, inside the request's span; return the headers to send."""
        if has_request_context():
            environ = request.environ  # middleware may have passed on a copy
            if _ROUTE not in environ:
                self._begin()  # it failed before the hook
        # Without a request context, middleware between this and the app has answered.
        route, method = environ.get(_ROUTE, UNMATCHED), known_method(environ["REQUEST_METHOD"])
        seconds = time.perf_counter() - environ[_STARTED]
        self._metrics.request_ended(method, route, status, seconds)
        if (error_type := environ.get(errors.TYPE)) is not None:
            tracing.failed(error_type)
        if route not in _PROBES:  # probes would fill the log, and metrics count them
            self._log.info(
                "request.completed", method=method, http_route=route, status=status, duration_s=round(seconds, 6)
            )
        traceresponse = tracing.traceparent()
        return headers if traceresponse is None else [*headers, ("traceresponse", traceresponse)]

    def _forget_identity(self, _error: BaseException | None) -> None:
        """End the work that `_begin` started, but not for copies of the request context, which may end at any time."""
        if request.environ.get(_OF) is request_ctx._get_current_object():  # type: ignore[attr-defined]  # noqa: SLF001
            del request.environ[_OF]
            request.environ.pop(_IDENTITY).__exit__(None, None, None)


def _without_needless_type(response: Response) -> Response:
    if request.method == "OPTIONS" and not response.get_data():
        response.headers.pop("Content-Type", None)  # Flask sets HTML also for an empty body
    return response


class _Door:
    """Admits or rejects requests in a Flask hook, and lets the next one run when one has ended.

    Args:
        app: The app.
        service: The service's name.
        metrics: The metrics that count rejected requests.
        admission: Limits the requests.
        hosts: The host names of the service.
    """

    def __init__(self, app: Flask, service: str, metrics: Metrics, admission: _Admission, hosts: Hosts) -> None:
        self._service = service
        self._metrics = metrics
        self._admission = admission
        self._trusted = functools.lru_cache(128)(hosts.trusts)
        app.before_request(self._check)
        app.after_request(_without_needless_type)
        app.wsgi_app = self._around(app.wsgi_app)  # type: ignore[assignment, method-assign]

    def _check(self) -> ResponseReturnValue | None:
        """Admit the request, or return the answer that rejects it."""
        environ = request.environ
        if not self._trusted(environ.get("HTTP_HOST"), environ.get("SERVER_PROTOCOL")):
            return errors.problem_response(
                HTTPStatus.BAD_REQUEST,
                "untrusted-host",
                "Unknown host",
                f"{self._service} does not go by the name in the Host header. TRUSTED_HOSTS names further ones.",
            )
        if isinstance(request.routing_exception, RequestRedirect):  # Flask would redirect a missing slash, in HTML
            abort(HTTPStatus.NOT_FOUND)
        if environ[_ROUTE] in _PROBES:
            return None
        environ[_ADMITTED] = self._admission.enter()
        if environ[_ADMITTED]:
            return None
        self._metrics.request_rejected()
        return errors.problem_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "overloaded",
            "Too many requests",
            f"{self._service} has more to do than it can. Try again in a moment.",
            headers=errors.RETRY_AFTER,
        )

    def _around(self, inner: "WSGIApplication") -> "WSGIApplication":
        def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            try:
                return inner(environ, start_response)
            finally:
                if environ.get(_ADMITTED):
                    self._admission.leave()

        return serve


def _operations(metrics: Metrics, ready_checks: Sequence[Callable[[], None]]) -> Blueprint:
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz")
    def healthz() -> dict[str, str]:
        """Tell that the process is alive. It checks no dependency, so that a dead database restarts no service."""
        return {"status": "ok"}

    @blueprint.get("/readyz")
    def readyz() -> Response | dict[str, str]:
        """Tell whether this service's own dependencies are available. Other services are not checked."""
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
        if not metrics.enabled:
            return errors.problem_response(
                HTTPStatus.NOT_FOUND, "no-metrics", "No metrics", "OTEL_METRICS_EXPORTER is none: nothing is measured."
            )
        body, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    return blueprint


def route_template(rule: Rule | None) -> str:
    """Return a route as OpenAPI writes it, `/parcels/{parcel_id}`, or `unmatched`.

    Log lines, metrics and spans contain paths only in this form.

    Args:
        rule: The request's `url_rule`.
    """
    return UNMATCHED if rule is None else _template(rule.rule)


@functools.lru_cache
def _template(rule: str) -> str:
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule)
