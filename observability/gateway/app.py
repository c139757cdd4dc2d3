"""HTTP: `/metrics` and `/healthz`, and the access log as OTLP logs where a Collector brings it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

from flask import Flask, Response, request
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from observability.receiving.body import PROTOBUF, Refused, read_export
from servicekit.web.hosts import Hosts

MAX_BYTES = 8 * 1024 * 1024
"""The largest request, unpacked."""

AT_ONCE = 2
"""Requests worked on at the same time, which bounds memory. The sender is told to come back with one more."""

_HOSTS = Hosts("gateway-telemetry")
_TAKEN = ExportLogsServiceResponse().SerializeToString()
_LINES = 500  # as many as a chunk of a followed file has


def create_app(
    registry: CollectorRegistry, alive: Callable[[], bool], take: Callable[[Sequence[bytes]], None] | None
) -> Flask:
    """Make the app.

    Args:
        registry: What `/metrics` shows.
        alive: Whether all of the process works.
        take: Is given the lines that come by OTLP; None to take none.
    """
    app = Flask("gateway-telemetry", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.before_request(_refuse_host)

    @app.get("/healthz")
    def healthz() -> tuple[dict[str, str], int]:
        return ({"status": "ok"}, 200) if alive() else ({"status": "failed"}, 503)

    @app.get("/metrics")
    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    if take is not None:
        _receive(app, take)
    return app


def _refuse_host() -> Response | None:
    if _HOSTS.trusts(request.environ.get("HTTP_HOST"), request.environ.get("SERVER_PROTOCOL")):
        return None
    return Response("gateway-telemetry does not go by the name in the Host header\n", 400, content_type="text/plain")


def _receive(app: Flask, take: Callable[[Sequence[bytes]], None]) -> None:
    """Take OTLP logs: each record's body is a line. The answer comes when they are counted, so none is lost."""
    room = threading.BoundedSemaphore(AT_ONCE)

    @app.errorhandler(Refused)
    def refuse(refused: Refused) -> Response:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if refused.reason == "encoding" else refused.status
        headers = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
        return Response(f"{refused}\n", status, headers, content_type="text/plain")

    @app.post("/v1/logs")
    def logs() -> Response:
        if not room.acquire(blocking=False):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "busy")
        try:
            message = ExportLogsServiceRequest()
            read_export(message, MAX_BYTES, [PROTOBUF])
            lines = list(_bodies(message))
            for start in range(0, len(lines), _LINES):
                take(lines[start : start + _LINES])
        finally:
            room.release()
        return Response(_TAKEN, content_type=PROTOBUF)


def _bodies(message: ExportLogsServiceRequest) -> Iterator[bytes]:
    for of_resource in message.resource_logs:
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                yield record.body.string_value.encode()  # empty for a body of another kind: counted as no line of ours
