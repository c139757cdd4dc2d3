"""A service with telemetry as it can be installed: `opentelemetry-instrument python -P stock.py -c CONF APPLICATION`.

It takes gunicorn's arguments. The service is the shop's, its code unchanged; what it stands on is swapped:

    spans    zero-code instrumentation of Flask, psycopg2 and requests, instead of servicekit's
    calls    requests, since no official instrumentation knows servicekit's client
    metrics  prometheus_client's histograms of requests and of calls, no exemplars; nothing of statements and pools
    logs     the same events by the standard library's logging, as JSON, with the ids that its instrumentation adds

What it swaps it finds by name, in whatever module has it: so it fits older commits too.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import requests
import structlog
from flask import g, request
from opentelemetry import trace
from prometheus_client import Histogram, make_wsgi_app
from requests.adapters import HTTPAdapter
from werkzeug.middleware.dispatcher import DispatcherMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from flask import Flask, Response

_CONNECT_SECONDS = 0.5

_log = logging.getLogger("stock")
_requests = Histogram("http_server_request_duration_seconds", "Requests served.", ["method", "route", "status"])
_calls = Histogram("http_client_request_duration_seconds", "Calls to other services.", ["peer", "outcome"])


class JsonFormatter(logging.Formatter):
    """A record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        line = {
            "timestamp": self.formatTime(record),
            "level": record.levelname.lower(),
            "service": getattr(record, "otelServiceName", None),
            "event": record.getMessage(),
            "trace_id": getattr(record, "otelTraceID", None),
            "span_id": getattr(record, "otelSpanID", None),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class StockLogger:
    """Takes a service's events for the standard library's logging."""

    def log(self, level: int, event: str, *, exc_info: Any = None, **fields: Any) -> None:
        """Log an event."""
        _log.log(level, event, exc_info=exc_info, extra={"fields": fields})

    debug = functools.partialmethod(log, logging.DEBUG)
    info = functools.partialmethod(log, logging.INFO)
    warning = functools.partialmethod(log, logging.WARNING)
    error = functools.partialmethod(log, logging.ERROR)
    critical = functools.partialmethod(log, logging.CRITICAL)


class StockTelemetry:
    """Stands for servicekit's: spans are made by others.

    Args:
        kit: servicekit's module.
    """

    serves = False  # asked for by older commits
    records = True

    def __init__(self, kit: ModuleType, *_arguments: Any, **_more: Any) -> None:
        self.tracer = kit.Tracer()  # without anything to send to: makes none

    def instrument(self, app: Flask) -> None:
        """Do nothing: `opentelemetry-instrument` did."""

    def shutdown(self) -> None:
        """Send what is left."""
        provider: Any = trace.get_tracer_provider()
        provider.shutdown()


class StockClient:
    """Stands for servicekit's client of another service.

    Args:
        kit: servicekit's module.
        peer: The other service's name.
        base_url: Its root.
        timeout_seconds: How long one try may wait for the answer.
        connections: How many are kept.
        credential: What each call is sent with.
    """

    def __init__(  # noqa: PLR0913
        self,
        kit: ModuleType,
        peer: str,
        base_url: str,
        *_measuring: Any,
        timeout_seconds: float,
        connections: int = 32,
        credential: Any = None,
    ) -> None:
        self._kit = kit
        self._peer = peer
        self._base_url = base_url
        self._timeout = (_CONNECT_SECONDS, timeout_seconds)
        self._credential = credential
        self._session = requests.Session()
        self._session.mount(base_url, HTTPAdapter(pool_maxsize=connections, pool_block=True, max_retries=1))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(self, route: str, **path: int) -> Any:
        """GET a resource."""
        return self._call("GET", route.format(**path), None, {})

    def post(
        self,
        route: str,
        body: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        authorization: str | None = None,
        retry: bool = False,  # noqa: ARG002  # the adapter tries again what never left
    ) -> Any:
        """POST a JSON body."""
        headers = {"Idempotency-Key": idempotency_key, "Authorization": authorization}
        known = {name: value for name, value in headers.items() if value is not None}
        return self._call("POST", route, body, known)

    def _call(self, method: str, target: str, body: Mapping[str, Any] | None, headers: dict[str, str]) -> Any:
        if self._credential is None:
            return self._exchange(method, target, body, headers)
        for _ in range(2):
            token = self._credential.token()
            reply = self._exchange(method, target, body, headers | {"Authorization": f"Bearer {token}"})
            if reply.status != requests.codes.unauthorized:
                return reply
            self._credential.refused(token)
        raise self._kit.DependencyUnavailable(self._peer)

    def _exchange(self, method: str, target: str, body: Mapping[str, Any] | None, headers: dict[str, str]) -> Any:
        began, outcome = time.perf_counter(), "error"
        url = f"{self._base_url}{target}"
        try:
            answer = self._session.request(method, url, json=body, headers=headers, timeout=self._timeout)
            outcome = str(answer.status_code)
            if answer.status_code >= requests.codes.server_error:
                raise self._kit.DependencyUnavailable(self._peer)
            return self._kit.Reply(answer.status_code, answer.json() if answer.content else None)
        except (requests.RequestException, ValueError) as error:
            raise self._kit.DependencyUnavailable(self._peer) from error
        finally:
            _calls.labels(self._peer, outcome).observe(time.perf_counter() - began)


def measured(create_app: Callable[[], Flask]) -> Callable[[], Flask]:
    """Have an app count its requests, as prometheus_client's documentation does it."""

    def create() -> Flask:
        app = create_app()

        def begin() -> None:
            g.began = time.perf_counter()

        def end(response: Response) -> Response:
            route = request.url_rule.rule if request.url_rule else "unmatched"
            if "began" in g:
                _requests.labels(request.method, route, response.status_code).observe(time.perf_counter() - g.began)
            return response

        app.before_request(begin)
        app.after_request(end)
        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": make_wsgi_app()})  # type: ignore[method-assign]
        return app

    return create


def swap(name: str, make: Callable[[ModuleType], Any]) -> None:
    """Put something else wherever the shop's code has this name of servicekit's.

    Args:
        name: What servicekit calls it.
        make: Makes what stands for it from the module that defines it.
    """
    ours = [module for key, module in [*sys.modules.items()] if key.partition(".")[0] in _SHOP or _is_service(key)]
    homes = {
        vars(module)[name].__module__
        for module in ours
        if getattr(vars(module).get(name), "__module__", "").partition(".")[0] == "servicekit"
    }
    for home in homes:  # one, or none where a service has no use for it
        original = vars(sys.modules[home])[name]
        other = make(sys.modules[home])
        for module in ours:
            if vars(module).get(name) is original:
                setattr(module, name, other)


_SHOP = {"servicekit", "shop"}


def _is_service(module: str) -> bool:
    return module.partition(".")[0].endswith("_service")


def main() -> None:
    """Swap, and let gunicorn run."""
    service = importlib.import_module(sys.argv[-1].partition(":")[0])
    handler = logging.StreamHandler(sys.__stdout__)
    handler.setFormatter(JsonFormatter())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    structlog.configure()  # or the service would set up logging as servicekit does, for what libraries log
    swap("Telemetry", lambda kit: functools.partial(StockTelemetry, kit))
    swap("ServiceClient", lambda kit: functools.partial(StockClient, kit))
    swap("get_logger", lambda _kit: StockLogger)
    vars(service)["create_app"] = measured(vars(service)["create_app"])
    from gunicorn.app.wsgiapp import run  # noqa: PLC0415  # it reads sys.argv; the shop comes first

    sys.argv[0] = "gunicorn"
    run()


if __name__ == "__main__":
    main()
