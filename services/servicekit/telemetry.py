"""Sets up tracing for one service: OpenTelemetry's SDK, its Flask instrumentation, the export."""

import os

from flask import Flask
from opentelemetry import propagate
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servicekit.config import TelemetrySettings
from servicekit.exporting import Pipeline
from servicekit.metrics import Metrics
from servicekit.tracing import Tracer

NAMESPACE = "shop"
VERSION = "1.0.0"
"""`service.version` of every part: they are released together."""

# Searched for in the whole URL, so it is tied to the path: no client takes itself out with `?x=/healthz`.
_UNTRACED = r"^[a-z]+://[^/?]*/(healthz|readyz|metrics)(\?|$)"


class Telemetry:
    """How a service's requests and work become spans that somebody can look at.

    Args:
        service: Its name, such as `order-service`.
        settings: Where spans go, and how many. Without an endpoint nothing is recorded.
        metrics: Where to count what was sent and what was lost.

    Attributes:
        tracer: What makes the service's spans.
    """

    def __init__(self, service: str, settings: TelemetrySettings, metrics: Metrics) -> None:
        self._provider: TracerProvider | None = None
        self.tracer = Tracer()
        if settings.otel_exporter_otlp_endpoint is None:
            return
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.otel_traces_sampler_arg)),
            resource=resource(service, settings),
            shutdown_on_exit=False,  # the server's worker does it, while logs still work
            meter_provider=NoOpMeterProvider(),
        )
        self._provider.add_span_processor(Pipeline(settings.otel_exporter_otlp_endpoint, metrics.registry))
        self.tracer = Tracer(self._provider.get_tracer("servicekit", VERSION))

    def instrument(self, app: Flask) -> None:
        """Give each request but probes a server span. Before any other hook, so that theirs run inside it."""
        if self._provider is None:
            return
        # The one way to ask for the stable conventions' names; whoever set it otherwise meant another program.
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
        # The instrumentation reads headers with the global propagator, which by default takes baggage too.
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # servicekit.metrics measures
            excluded_urls=_UNTRACED,
            enable_commenter=False,
        )

    def shutdown(self) -> None:
        """Send what is left, within a second or two."""
        if self._provider is not None:
            self._provider.shutdown()


def resource(service: str, settings: TelemetrySettings) -> Resource:
    """Say whose spans they are. OpenTelemetry adds itself, and `service.instance.id`."""
    return Resource.create({
        "service.name": service,
        "service.namespace": NAMESPACE,
        "service.version": VERSION,
        "deployment.environment.name": settings.deployment_environment,
    })  # fmt: skip
