"""Sets up tracing: OpenTelemetry's SDK and its Flask instrumentation, as the environment wants them."""

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

# Searched for in the whole URL, so it is tied to the path: no client takes itself out with `?x=/healthz`.
_UNTRACED = r"^[a-z]+://[^/?]*/(healthz|readyz|metrics)(\?|$)"


# Read by whoever made the provider: where that was not servicekit, a value that it does not know may well be in use.
_OF_THE_PROVIDER = ("OTEL_EXPORTER_", "OTEL_BSP_", "OTEL_METRICS_", "OTEL_TRACES_")

_cut_by: WeakKeyDictionary[trace.TracerProvider, "Privacy"] = WeakKeyDictionary()
"""The providers that were made here, whose exporters cut."""


class Telemetry:
    """Tracing of a process: the first one made is the process' own, and OpenTelemetry's global one.

    So a library's `trace.get_tracer()`, or your own, makes spans of the same trace. A second app in the process shares
    what the first set up, and so does an app whose provider somebody else has set before it, such as
    `opentelemetry-instrument`. Then that provider decides whose spans they are, where they are sent, and what of them
    is counted. What may leave the process is decided here: all spans of that provider are cut. If that cannot be
    done, because it is not the SDK's, a warning says so.

    Args:
        service: `service.name`, unless the environment has another.
        registry: Where to count what was sent and what was lost.
        resource: Further attributes of the resource; the environment's win.
        attributes: The attributes that may leave the process; see `Privacy`. Of two apps with different lists, only
            what both allow leaves.

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
        problems = environment.prepare(os.environ)
        # Imported here: the SDK reads a part of the environment when it is imported, and raises if that will not do.
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        from servicekit.telemetry.exporter import Privacy, cut_spans_of, processors  # noqa: PLC0415

        privacy = Privacy(attributes)
        current = trace.get_tracer_provider()
        self._provider: TracerProvider | None = None
        if isinstance(current, TracerProvider):  # another app's, or `opentelemetry-instrument` set it
            self._provider = current
            report(problem for problem in problems if not problem.variable.startswith(_OF_THE_PROVIDER))
            if _cut_by.get(current) != privacy and not cut_spans_of(current, privacy):
                _warn_of(current)
        else:
            report(problems)
            if not isinstance(current, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                _warn_of(current)  # it stays the global one
            if wanted := processors(registry, privacy):
                # Shut down by the server's worker; where there is none, by the SDK when the process exits.
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
            excluded_urls=f"{named},{_UNTRACED}" if named else _UNTRACED,  # flags such as (?i) have to be at the start
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
    given = dict(OTELResourceDetector().detect().attributes)
    if (named := environment.service_name(os.environ)) is not None:
        service = named
    return Resource.create({**(attributes or {}), **given, "service.name": service})


def _installed_sampler() -> "Sampler | None":
    """Make the sampler that OTEL_TRACES_SAMPLER names, if it is not one of the SDK's own, which it makes itself."""
    name = os.environ.get("OTEL_TRACES_SAMPLER")
    if name is None or name in environment.SAMPLERS:
        return None
    [found, *_] = entry_points(group="opentelemetry_traces_sampler", name=name)
    try:
        made: Sampler = found.load()(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001  # somebody else's code: the service starts
        report([environment.Ignored("OTEL_TRACES_SAMPLER", f"it could not be made: {type(error).__qualname__}")])
        os.environ.pop("OTEL_TRACES_SAMPLER")
        return None
    return made


def _warn_of(provider: trace.TracerProvider) -> None:
    kind = type(provider)
    logs.get_logger().warning("telemetry.spans_not_cut", provider=f"{kind.__module__}.{kind.__qualname__}")


def report(ignored: Iterable[environment.Ignored]) -> None:
    """Warn of the variables that `environment.prepare` took out."""
    for one in ignored:
        logs.get_logger().warning("telemetry.setting_ignored", variable=one.variable, reason=one.reason)
