"""`python -m observability.gateway`: reads the access log until it is told to stop. settings.py says what it takes."""

import os
import signal
import sys

import waitress
from flask import Flask

from observability.gateway.app import AT_ONCE, MAX_BYTES, create_app
from observability.gateway.follow import Follower
from observability.gateway.line import Vocabulary
from observability.gateway.metrics import GatewayMetrics
from observability.gateway.probe import Probe
from observability.gateway.settings import ROUTES, GatewaySettings
from servicekit.config import ConfigError, load
from servicekit.process.background import Periodic
from servicekit.telemetry import environment, logs
from servicekit.telemetry.setup import make_resource, report
from shop import ATTRIBUTES, RESOURCE

NAME = "gateway-telemetry"
_LOOK_SECONDS = 0.1  # how often to look at the file
_STOP_SECONDS = 0.4  # how long its reader may take for the chunk at hand


def main() -> int:
    """Run until SIGTERM."""
    logs.configure(NAME)  # before all else: what is wrong with the settings is a log line too
    logs.capture_output()
    try:
        settings = load(GatewaySettings)
    except ConfigError as error:
        logs.get_logger().error("start.failed", reason=str(error))
        return 2
    logs.configure(NAME, settings.log_level)
    vocabulary = Vocabulary.of(ROUTES)
    metrics = GatewayMetrics(vocabulary, module=settings.gateway_tracing == "module")
    report(environment.prepare(os.environ))
    # Imported here: the SDK reads a part of the environment when it is imported, and raises if that will not do.
    from observability.gateway.pipeline import Pipeline  # noqa: PLC0415
    from servicekit.telemetry.exporter import Privacy, processors  # noqa: PLC0415

    wanted = processors(metrics.registry, Privacy(ATTRIBUTES)) if settings.gateway_tracing == "log" else []
    export = wanted[0] if wanted else None
    pipeline = Pipeline(vocabulary, metrics, export, make_resource("nginx", RESOURCE))
    probe = Probe(settings.gateway_url, metrics.gateway_up) if settings.gateway_url else None
    if probe is not None:
        probe.start()
    try:
        if (path := settings.access_log_file) is not None:
            state = settings.state_file or path.with_name(f"{path.name}.position")
            _follow(settings, metrics, Follower(path, state, pipeline.take))
        else:
            app = create_app(metrics.registry, lambda: True, pipeline.take)
            _serve(app, settings)
    except OSError as error:
        logs.get_logger().error("listen.failed", reason=error.strerror)
        return 1
    finally:
        if probe is not None:
            probe.stop()
        if export is not None:
            export.shutdown()
    return 0


def _follow(settings: GatewaySettings, metrics: GatewayMetrics, follower: Follower) -> None:
    reading = Periodic("follow", _LOOK_SECONDS, follower.read)
    reading.start()
    try:
        _serve(create_app(metrics.registry, lambda: follower.healthy, None), settings)
    finally:
        ended = reading.stop(_STOP_SECONDS)
        if not ended:  # it waits for room, and nobody may come between
            follower.abandon()
    if ended:
        reading.run_once()  # what came last
        follower.close()


def _serve(app: Flask, settings: GatewaySettings) -> None:
    """Serve until the process is told to stop."""
    server = waitress.create_server(
        app,
        listen=" ".join(f"{settings.host}:{port}" for port in settings.ports),
        threads=AT_ONCE + 4,  # so that there are some left for probes
        connection_limit=16,
        max_request_body_size=MAX_BYTES,
        inbuf_overflow=MAX_BYTES,  # what is larger would go to a temporary file
        outbuf_overflow=MAX_BYTES,
        ident=None,
    )
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    logs.get_logger().info("server.started", ports=settings.ports, tracing=settings.gateway_tracing)
    server.run()
    logs.get_logger().info("server.stopped")


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit  # which waitress takes as the wish to end


if __name__ == "__main__":
    sys.exit(main())
