"""The wiring: one file, its stores, and three HTTP servers in one process."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Flask, request
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from werkzeug.exceptions import BadRequest
from werkzeug.http import parse_options_header

from observability.embedded import jaeger, loki, otlp, push
from observability.embedded.database import MEGABYTE, Database
from observability.embedded.logs import LogStore
from observability.embedded.metrics import BackendMetrics
from observability.embedded.settings import BackendSettings
from observability.embedded.spans import SpanStore
from observability.embedded.tail import Tail
from servicekit.telemetry import logs
from servicekit.web.hosts import Hosts

_THREADS = 4  # of each port, so that a slow search keeps nobody from sending
_LOOP_SECONDS = 0.2  # between two looks at whether to stop
_STOP_SECONDS = 0.5  # that requests in work have to finish
_BACKLOG = 128
_STOOD_IN_FOR = "collector,jaeger,loki"  # by whose names it may be asked, too


class PortInUse(RuntimeError):
    """A port cannot be listened on. The message says which, and what to do."""


class Backend:
    """All of the embedded backend.

    Args:
        settings: Its settings.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._settings = settings
        self.database = Database(
            settings.embedded_database,
            max_bytes=settings.max_database_mb * MEGABYTE,
            max_age_seconds=settings.retention_hours * 3600,
            queue_bytes=settings.queue_mb * MEGABYTE,
        )
        self.spans = SpanStore(self.database)
        self.logs = LogStore(self.database)
        patterns = [pattern.strip() for pattern in settings.log_files.split(",") if pattern.strip()]
        self.tail = Tail(
            self.logs,
            patterns,
            environment=settings.deployment_environment,
            lost_file=settings.log_lines_lost_file,
        )
        self.metrics = BackendMetrics(self.database, self.spans, self.tail)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Make `run` come to its end; may be called from a signal's handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`; then write what was accepted.

        Raises:
            PortInUse: One of the ports is taken.
            Unusable: The database's file cannot be used.
        """
        log = logs.get_logger()
        with contextlib.ExitStack() as stack:
            apps = self.apps()
            sockets = {name: stack.enter_context(self._listen(name)) for name in apps}
            self.database.start()
            stack.callback(self.database.stop)
            self.tail.start()
            stack.callback(self.tail.stop)
            servers: dict[int, Any] = {}
            for name, app in apps.items():
                server = self._server(app, sockets[name], servers)
                if name == "otlp_port":
                    server.channel_class = _OtlpChannel
                stack.callback(server.task_dispatcher.shutdown, cancel_pending=True, timeout=_STOP_SECONDS)
            stack.callback(wasyncore.close_all, servers)
            log.info("backend.started", **{name: getattr(self._settings, name) for name in sockets})
            while not self._stopping.is_set():
                wasyncore.poll2(_LOOP_SECONDS, servers)
        log.info("backend.stopped", failed_writes=self.database.figures.failed_writes)

    def apps(self) -> Mapping[str, Flask]:
        """Give the app of each port, by the name of the port's setting."""
        limits = otlp.Limits(self._settings.max_request_mb * MEGABYTE, self._settings.retention_hours * 3600)
        hosts = Hosts("embedded-backend", f"{_STOOD_IN_FOR},{self._settings.trusted_hosts}")
        return {
            "otlp_port": _app(
                "otlp", hosts, otlp.blueprint(self.database, self.spans, self.logs, self.metrics, limits)
            ),
            "jaeger_port": _app("jaeger", hosts, jaeger.blueprint(self.spans)),
            "loki_port": _app(
                "loki", hosts, loki.blueprint(self.logs), push.blueprint(self.logs, self.metrics, limits)
            ),
        }

    @contextlib.contextmanager
    def _listen(self, name: str) -> Iterator[socket.socket]:
        host, port = self._settings.host, getattr(self._settings, name)
        try:
            listener = socket.create_server((host, port), backlog=_BACKLOG)
        except OSError as error:
            variable = name.upper()
            raise PortInUse(
                f"cannot listen on {host}:{port}, {os.strerror(error.errno or 0)}: stop its user, or set {variable}"
            ) from error
        with listener:
            yield listener

    def _server(self, app: Flask, listener: socket.socket, servers: dict[int, Any]) -> TcpWSGIServer:
        return create_server(
            app,
            map=servers,
            sockets=[listener],
            threads=_THREADS,
            ident=None,
            connection_limit=1000,
            channel_timeout=60,
            max_request_body_size=2 * self._settings.max_request_mb * MEGABYTE,  # the apps refuse in their own words
            clear_untrusted_proxy_headers=True,
        )


class _OtlpError(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What the web server refuses by itself, before the app sees it: in OTLP's form too."""

    def execute(self) -> None:
        error = self.request.error
        media_type, _ = parse_options_header(self.request.headers.get("CONTENT_TYPE"))
        response = otlp.error_response(error.code, f"{error.reason}: {error.body}", media_type)
        error.to_response = lambda _ident: (response.status, list(response.headers), response.get_data())
        super().execute()


class _OtlpChannel(HTTPChannel):  # type: ignore[misc]  # as above
    error_task_class = _OtlpError


def _app(name: str, hosts: Hosts, *blueprints: Blueprint) -> Flask:
    app = Flask(name, static_folder=None)
    app.url_map.merge_slashes = False

    @app.before_request
    def refuse_host() -> None:
        if not hosts.trusts(request.environ.get("HTTP_HOST"), request.environ.get("SERVER_PROTOCOL")):
            raise BadRequest("the embedded backend does not go by the name in Host: TRUSTED_HOSTS names further ones")

    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app
