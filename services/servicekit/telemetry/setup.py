"""Sets up tracing: OpenTelemetry's SDK and its Flask instrumentation, as the environment wants them."""

import os
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from flask import Flask
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry

from servicekit.telemetry import environment, logs
from servicekit.telemetry.tracing import Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

SCOPE = "servicekit"

# Searched for in the whole URL, so it is tied to the path: no client takes itself out with `?x=/healthz`.
_UNTRACED = r"^[a-z]+://[^/?]*/(healthz|readyz|metrics)(\?|$)"


class Telemetry:
    """Tracing of a process: the first one made is the process' own, and OpenTelemetry's global one.

    So a library's `trace.get_tracer()`, or your own, makes spans of the same trace. A second app in the process shares
    what the first set up, and so does an app whose provider somebody else has set before it, such as
    `opentelemetry-instrument`. Then that provider decides what is sent and where: spans are neither
    cut nor counted here.

    Args:
        service: `service.name`, unless the environment has another.
        registry: Where to count what was sent and what was lost.
        resource: Further attributes of the resource; the environment's win.
        attributes: The attributes that may leave the process, if the provider is made here; see `Privacy`.

    Attributes:
        tracer: Makes spans of the service's own work.
    """

    def __init__(
        self,
        service: str,
        registry: CollectorRegistry,
        *,
        resource: Mapping[str, str] | None = None,
        attributes: Collection[str] | None = None,
    ) -> None:
        report(environment.prepare(os.environ))
        # Imported here: the SDK reads a part of the environment when it is imported, and raises if that will not do.
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        from servicekit.telemetry.exporter import Privacy, processors  # noqa: PLC0415

        self._provider: TracerProvider | None = None
        current = trace.get_tracer_provider()
        if isinstance(current, TracerProvider):  # another app's, or `opentelemetry-instrument` set it
            self._provider = current
        elif wanted := processors(registry, Privacy(attributes)):
            # Shut down by the server's worker; where there is none, by the SDK when the process exits.
            self._provider = TracerProvider(
                sampler=_installed_sampler(),
                resource=make_resource(service, resource),
                meter_provider=NoOpMeterProvider(),
            )
            for processor in wanted:
                self._provider.add_span_processor(processor)
            trace.set_tracer_provider(self._provider)
        self.tracer = Tracer(self._provider.get_tracer(SCOPE) if self._provider is not None else None)

    def instrument(self, app: Flask) -> None:
        """Give each request but probes a server span. Before any other hook, so that theirs run inside it."""
        if self._provider is None:
            return
        # Imported here: what it imports reads OTEL_PROPAGATORS, and ends the process if that will not do.
        from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415

        named = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS") or os.environ.get("OTEL_PYTHON_EXCLUDED_URLS")
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # servicekit.telemetry.metrics measures
            excluded_urls=f"{_UNTRACED},{named}" if named else _UNTRACED,
            enable_commenter=False,
        )

    def shutdown(self) -> None:
        """Send what is left, within a second or two."""
        if self._provider is not None:
            self._provider.shutdown()


def make_resource(service: str, attributes: Mapping[str, str] | None = None) -> Resource:
    """Say whose spans they are. OpenTelemetry adds itself, and `service.instance.id`.

    Args:
        service: `service.name`, unless the environment has another.
        attributes: Further ones; the environment's win.
    """
    return Resource.create(
        {"service.name": service, **(attributes or {}), **OTELResourceDetector().detect().attributes}
    )


def _installed_sampler() -> "Sampler | None":
    """Make the sampler that OTEL_TRACES_SAMPLER names, if it is not one of the SDK's own, which it makes itself."""
    name = os.environ.get("OTEL_TRACES_SAMPLER")
    if name is None or name in environment.SAMPLERS:
        return None
    [found, *_] = entry_points(group="opentelemetry_traces_sampler", name=name)
    try:
        made: Sampler = found.load()(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001  # somebody else's code: the service starts
        report([environment.Problem("OTEL_TRACES_SAMPLER", f"it could not be made: {type(error).__qualname__}")])
        os.environ.pop("OTEL_TRACES_SAMPLER")
        return None
    return made


def report(problems: Iterable[environment.Problem]) -> None:
    """Warn of the variables that `environment.prepare` took out."""
    for problem in problems:
        logs.get_logger().warning("telemetry.setting_ignored", variable=problem.variable, reason=problem.reason)
