"""Sets up tracing: OpenTelemetry's SDK and its Flask instrumentation, configured by the environment."""

import os
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from flask import Flask
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry

from servicekit.telemetry import environment, logs
from servicekit.telemetry.tracing import SCOPE, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

    from servicekit.telemetry.exporter import Privacy

# The SDK searches the whole URL, so this matches the path only: else `?x=/healthz` would exclude a request.
_UNTRACED = r"^[a-z]+://[^/?]*/(healthz|readyz|metrics)(\?|$)"


# Whoever made the provider reads these. If that was not servicekit, a value unknown here may still be in use.
_OF_THE_PROVIDER = ("OTEL_EXPORTER_", "OTEL_BSP_", "OTEL_METRICS_", "OTEL_TRACES_")

_cut_by: WeakKeyDictionary[trace.TracerProvider, "Privacy"] = WeakKeyDictionary()
"""The providers that were made here; their exporters remove private data."""


class Telemetry:
    """Tracing of a process. The first instance becomes OpenTelemetry's global tracer provider.

    So spans of a library's `trace.get_tracer()`, or of your own, are in the same trace. A second app in the process
    uses what the first set up. If other code has set a global provider before, such as `opentelemetry-instrument`, the
    app uses that one. Then that provider decides on the resource, the exporters and the metrics about spans. Private
    data is removed from all its spans all the same. If that is impossible, because it is not the SDK's provider, a
    warning says so.

    Args:
        service: `service.name`, unless the environment sets another.
        registry: Where the metrics about sent and lost spans are registered.
        resource: Further attributes of the resource; those of the environment take precedence.
        attributes: The attributes that may leave the process; see `Privacy`. If two apps have different lists, only
            attributes on both lists leave.

    Attributes:
        tracer: Makes spans for the service's own work.
    """

    def __init__(
        self,
        service: str,
        registry: CollectorRegistry,
        *,
        resource: Mapping[str, str] | None = None,
        attributes: Collection[str] | None = None,
    ) -> None:
        problems = environment.prepare(os.environ)
        # Imported here, because the SDK reads the environment on import and raises if a value is invalid.
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        from servicekit.telemetry.exporter import Privacy, cut_spans_of, processors  # noqa: PLC0415

        privacy = Privacy(attributes)
        current = trace.get_tracer_provider()
        self._provider: TracerProvider | None = None
        if isinstance(current, TracerProvider):  # set by another app or by `opentelemetry-instrument`
            self._provider = current
            report(problem for problem in problems if not problem.variable.startswith(_OF_THE_PROVIDER))
            if _cut_by.get(current) != privacy and not cut_spans_of(current, privacy):
                _warn_of(current)
        else:
            report(problems)
            if not isinstance(current, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                _warn_of(current)  # it stays the global one
            if wanted := processors(registry, privacy):
                # The server's worker shuts it down; without such a worker, the SDK does so when the process exits.
                self._provider = TracerProvider(
                    sampler=_installed_sampler(),
                    resource=make_resource(service, resource),
                    meter_provider=NoOpMeterProvider(),
                )
                _cut_by[self._provider] = privacy
                for processor in wanted:
                    self._provider.add_span_processor(processor)
                trace.set_tracer_provider(self._provider)
        self.tracer = Tracer(self._provider.get_tracer(SCOPE) if self._provider is not None else None)

    def instrument(self, app: Flask) -> None:
        """Give each request except probes a server span. Call it before other hooks are added: they run in it."""
        if self._provider is None:
            return
        # Imported here, because its import reads OTEL_PROPAGATORS and ends the process if the value is invalid.
        from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415

        named = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS") or os.environ.get("OTEL_PYTHON_EXCLUDED_URLS")
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # servicekit.telemetry.metrics measures
            excluded_urls=f"{named},{_UNTRACED}" if named else _UNTRACED,  # flags such as (?i) must come first
            enable_commenter=False,
        )

    def shutdown(self) -> None:
        """Send the remaining spans, within a second or two."""
        if self._provider is not None:
            self._provider.shutdown()


def make_resource(service: str, attributes: Mapping[str, str] | None = None) -> Resource:
    """Return the resource of the spans. OpenTelemetry adds `telemetry.sdk.*` and `service.instance.id`.

    Args:
        service: `service.name`, unless the environment sets another.
        attributes: Further attributes; those of the environment take precedence.
    """
    given = dict(OTELResourceDetector().detect().attributes)
    if (named := environment.service_name(os.environ)) is not None:
        service = named
    return Resource.create({**(attributes or {}), **given, "service.name": service})


def _installed_sampler() -> "Sampler | None":
    """Create the sampler that OTEL_TRACES_SAMPLER names, unless it is one that the SDK creates itself."""
    name = os.environ.get("OTEL_TRACES_SAMPLER")
    if name is None or name in environment.SAMPLERS:
        return None
    [found, *_] = entry_points(group="opentelemetry_traces_sampler", name=name)
    try:
        made: Sampler = found.load()(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001  # an installed sampler may raise anything; start without it
        report([environment.Ignored("OTEL_TRACES_SAMPLER", f"it could not be made: {type(error).__qualname__}")])
        os.environ.pop("OTEL_TRACES_SAMPLER")
        return None
    return made


def _warn_of(provider: trace.TracerProvider) -> None:
    kind = type(provider)
    logs.get_logger().warning("telemetry.spans_not_cut", provider=f"{kind.__module__}.{kind.__qualname__}")


def report(ignored: Iterable[environment.Ignored]) -> None:
    """Log a warning for each variable that `environment.prepare` removed."""
    for one in ignored:
        logs.get_logger().warning("telemetry.setting_ignored", variable=one.variable, reason=one.reason)
