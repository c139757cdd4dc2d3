"""What the tests of forks run: a service that says which process answers, and a program that forks while it traces."""

import json
import os
import sys
import time

from flask import Blueprint
from opentelemetry import context, trace

from servicekit.config import ServiceSettings
from servicekit.telemetry import logs
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from servicekit.web.app import make_app


def create_app():
    """For gunicorn: `/pid` makes a span beside the request's own."""
    logs.get_logger().info("app.starting")
    time.sleep(float(os.environ.get("START_SECONDS", "0")))
    metrics = Metrics()
    telemetry = Telemetry("forking", metrics.registry)
    routes = Blueprint("forking", __name__)

    @routes.get("/pid")
    def pid():
        with telemetry.tracer.span("work", {"pid": os.getpid()}):
            return {"pid": os.getpid()}

    @routes.get("/fork")
    def forks():
        """Fork within a request, whose span is open in both then; the child goes on with it."""
        child = os.fork()
        with telemetry.tracer.span("of the child" if child == 0 else "of the parent", {"pid": os.getpid()}):
            pass
        if child == 0:
            trace.get_current_span().end()
            telemetry.shutdown()
            os._exit(0)
        return {"ended": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}

    return make_app("forking", ServiceSettings(), metrics, telemetry, blueprints=[routes], error_table={})


def main():
    """Make spans, and fork at each line that is read: a child makes spans of that name, or none if it is `idle`.

    If it is `backdated`, the child makes one span, which is said to have begun long before.
    """
    logs.configure("forking")
    telemetry = Telemetry("forking", Metrics().registry)
    _spans(telemetry, "before")
    for line in sys.stdin:
        name = line.strip()
        child = os.fork()
        if child == 0:
            if name == "backdated":
                attributes = {"pid": os.getpid()}
                trace.get_tracer("forking").start_span(
                    name, context.Context(), attributes=attributes, start_time=1
                ).end()
            elif name != "idle":
                _spans(telemetry, name)
            telemetry.shutdown()
            os._exit(0)
        _spans(telemetry, "parent")
        _say(child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    telemetry.shutdown()


def _spans(telemetry, name, count=3):
    for _ in range(count):
        with telemetry.tracer.root(name, {"pid": os.getpid()}):
            pass


def _say(pid, status):
    print(json.dumps({"pid": pid, "status": status}), flush=True)


if __name__ == "__main__":
    main()
