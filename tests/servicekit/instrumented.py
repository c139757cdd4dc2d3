"""An app that others instrument as well: for test_privacy.py, run by `opentelemetry-instrument` or as it is.

The provider is its own if PROVIDER is `own`. LISTED names the attributes that may leave, if that is set.
"""

import os

from flask import Flask
from opentelemetry import trace

from servicekit.service import Application, Service

if os.environ.get("PROVIDER") == "own":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=50))
    trace.set_tracer_provider(provider)

early = trace.get_tracer("made.early")
app = Flask(__name__)
listed = os.environ.get("LISTED")
kit = Service("greeter", application=Application("shelf", span_attributes=listed.split(",") if listed else None))
kit.instrument(app)


@app.get("/hello/<name>")
def hello(name):
    """Greet somebody, and tell more than one should."""
    with early.start_as_current_span("early", attributes={"user.email": name, "shelf.words": 2, "other": 1}) as span:
        span.add_event("seen", {"user.id": name})
        span.record_exception(RuntimeError(name))
        span.set_status(trace.StatusCode.ERROR, name)
    with kit.tracer.span("choose words"):
        return {"greeting": f"Hello, {name}!"}
