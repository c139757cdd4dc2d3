"""Sets up tracing for one service: what makes its spans, and where they go."""

from flask import Flask
from opentelemetry.sdk.resources import Resource

from servicekit.config import ServiceSettings, TelemetrySettings
from servicekit.telemetry import lean
from servicekit.telemetry.exporting import Pipeline, leaves
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.sdk import Sdk
from servicekit.telemetry.tracing import Tracer

NAMESPACE = "shop"
SCOPE = "servicekit"
VERSION = "1.0.0"
"""`service.version` of every part: they are released together."""


class Telemetry:
    """How a service's requests and work become spans that somebody can look at.

    Args:
        service: Its name, such as `order-service`.
        settings: Where spans go, and how many. Without an endpoint nothing is recorded.
        metrics: Where to count what was sent and what was lost.

    Attributes:
        tracer: What makes the service's spans.
        serves: Whether it also makes those of requests. If not, `instrument` has the Flask instrumentation do it.
    """

    def __init__(self, service: str, settings: ServiceSettings, metrics: Metrics) -> None:
        self._sdk: Sdk | None = None
        self._pipeline: Pipeline | None = None
        self.tracer = Tracer()
        endpoint, share = settings.otel_exporter_otlp_endpoint, settings.otel_traces_sampler_arg
        if endpoint is not None and settings.tracing == "sdk":
            self._sdk = Sdk(endpoint, share, resource(service, settings), metrics.registry)
            self._pipeline = self._sdk.pipeline
            self.tracer = Tracer(self._sdk.tracer(SCOPE, VERSION))
        elif endpoint is not None:
            encoder = lean.Encoder(resource(service, settings), (SCOPE, VERSION), leaves)
            self._pipeline = Pipeline(endpoint, metrics.registry, encoder.encode)
            self.tracer = Tracer(lean.Tracer(share, self._pipeline.take))
        self.serves = self._sdk is None

    def instrument(self, app: Flask) -> None:
        """Give each request but probes a server span, unless `serves`. Before any other hook: theirs run inside it."""
        if self._sdk is not None:
            self._sdk.instrument(app)

    def shutdown(self) -> None:
        """Send what is left, within a second or two."""
        if self._pipeline is not None:
            self._pipeline.shutdown()


def resource(service: str, settings: TelemetrySettings) -> Resource:
    """Say whose spans they are. OpenTelemetry adds itself, and `service.instance.id`."""
    return Resource.create({
        "service.name": service,
        "service.namespace": NAMESPACE,
        "service.version": VERSION,
        "deployment.environment.name": settings.deployment_environment,
    })  # fmt: skip
