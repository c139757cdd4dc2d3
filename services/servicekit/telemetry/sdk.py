"""Tracing by OpenTelemetry's SDK and its Flask instrumentation: what `TRACING=sdk` chooses instead of `lean`."""

import os
from typing import Any

from flask import Flask
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry

from servicekit.telemetry.exporting import Pipeline, leaves

# Searched for in the whole URL, so it is tied to the path: no client takes itself out with `?x=/healthz`.
_UNTRACED = r"^[a-z]+://[^/?]*/(healthz|readyz|metrics)(\?|$)"

_STATUSES = {code: Status(code) for code in StatusCode}


def cut(span: ReadableSpan) -> ReadableSpan:
    """Return a span with nothing but what the telemetry contract knows.

    Instrumentation libraries record more than one would think: path and query, the user agent, the client's address,
    a made-up method, messages of exceptions. A list of what may leave keeps out what they will think of next. The
    client's tracestate is handed on in headers, as W3C wants it, and not kept.
    """
    attributes: dict[str, Any] = span.attributes.copy() if span.attributes else {}  # type: ignore[attr-defined]
    return ReadableSpan(
        span.name,
        _stateless(span.context),
        _stateless(span.parent),
        span.resource,
        {name: value for name, value in attributes.items() if leaves(name)},
        links=span.links,
        kind=span.kind,
        status=_STATUSES[span.status.status_code],
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _stateless(context: SpanContext | None) -> SpanContext | None:
    if context is None or not context.trace_state:
        return context
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class Sdk:
    """The SDK with our own way out.

    Args:
        endpoint: The root of an OTLP/HTTP receiver.
        share: How many of the traces that begin here are kept, from 0 to 1.
        resource: Whose spans they are.
        registry: Where to count them.
    """

    def __init__(self, endpoint: str, share: float, resource: Resource, registry: CollectorRegistry) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=resource,
            shutdown_on_exit=False,  # the server's worker does it, while logs still work
            meter_provider=NoOpMeterProvider(),
        )
        self.pipeline = Pipeline(endpoint, registry, lambda spans: encode_spans(spans).SerializePartialToString())
        self._provider.add_span_processor(_Cutting(self.pipeline))

    def tracer(self, name: str, version: str) -> trace.Tracer:
        """Return what makes spans."""
        return self._provider.get_tracer(name, version)

    def instrument(self, app: Flask) -> None:
        """Give each request but probes a server span. Before any other hook, so that theirs run inside it."""
        # The one way to ask for the stable conventions' names; whoever set it otherwise meant another program.
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
        # The instrumentation reads headers with the global propagator, which by default takes baggage too.
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # servicekit.telemetry.metrics measures
            excluded_urls=_UNTRACED,
            enable_commenter=False,
        )


class _Cutting(SpanProcessor):
    """Hands on what is sampled: cut at once, so that nothing of the client's waits in the queue."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._pipeline.take(cut(span))
