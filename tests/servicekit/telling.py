"""An app on servicekit in a process of its own, for test_environment.py and test_exporter.py. It prints JSON lines.

A process sets OpenTelemetry's provider once, and reads a part of the environment when it imports.
"""

import json
import sys
import time

from flask import Blueprint

from servicekit.config import ServiceSettings
from servicekit.telemetry import logs, tracing
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from servicekit.web.app import make_app


def main(level, requests, pause, allowed):
    """Serve these requests, given as headers, and say what was handed on; then wait for so many seconds, and end.

    Only these attributes may leave the process, if there is a list of them.
    """
    from opentelemetry import context, trace  # noqa: PLC0415  # it reads the environment: after servicekit has

    logs.configure("sample", level)
    logs.capture_output()
    metrics = Metrics(enabled=measures())
    telemetry = Telemetry("sample", metrics.registry, resource={"service.version": "7"}, attributes=allowed)
    routes = Blueprint("routes", __name__)

    @routes.get("/work")
    def work():
        with trace.get_tracer("of.others").start_as_current_span(
            "inner",
            attributes={"a": "0123456789", "b": "b", "c": 3},
            links=[trace.Link(trace.SpanContext(n, n, is_remote=True), {"a": "0123456789", "b": "b"}) for n in (1, 2)],
        ) as span:
            for name in ("one", "two"):
                span.add_event(name, {"a": "0123456789", "b": "b"})
        headers = {}
        tracing.inject(headers)
        return headers, {"x-tenant": "seven", "set-cookie": "canary-answered"}

    app = make_app("sample", ServiceSettings(), metrics, telemetry, blueprints=[routes], error_table={}, tasks=[])
    client = app.test_client()
    for headers in requests:
        began = time.perf_counter()
        answer = client.get("/work", headers=headers)
        seconds = time.perf_counter() - began
        logs.get_logger().info("test.answered", status=answer.status_code, handed_on=answer.json, seconds=seconds)
    logs.get_logger().info("test.measured", status=client.get("/metrics").status_code)
    logs.get_logger().info("test.found", context=type(context._RUNTIME_CONTEXT).__name__)
    time.sleep(pause)
    counted = [line for line in client.get("/metrics").text.splitlines(keepends=True) if "otel_sdk" in line]
    logs.get_logger().info("test.counted", metrics="".join(counted))
    began = time.monotonic()
    telemetry.shutdown()
    logs.get_logger().info("test.ended", seconds=time.monotonic() - began)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
