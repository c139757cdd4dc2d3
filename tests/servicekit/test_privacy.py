"""What is personal stays in the process, whoever set tracing up: servicekit, the app, or `opentelemetry-instrument`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from local import processes
from servicekit.service import Application, Service
from tests.fixtures.database import PROJECT
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually

INSTRUMENT = Path(sys.executable).parent / "opentelemetry-instrument"
GUNICORN = [sys.executable, "-m", "gunicorn"]
SERVERS = {
    "Flask's own": [sys.executable, "-m", "flask", "--app", "tests.servicekit.instrumented", "run", "--port", "{port}"],
    "gunicorn": [*GUNICORN, "--bind", "127.0.0.1:{port}", "--threads", "4", "tests.servicekit.instrumented:app"],
    "servicekit's": [*GUNICORN, "-c", "python:servicekit.process.gunicorn_conf", "tests.servicekit.instrumented:app"],
}
HEADERS = {
    "User-Agent": "canary-agent",
    "Cookie": "canary-cookie",
    "Authorization": "Bearer canary",
    "X-Tenant": "canary",
}
WORDS = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"}


@pytest.fixture
def start(tmp_path):
    """`start(command, **env)`: a client of a program that serves, once it does, and its output."""
    started = []

    def run(command, **env):
        port = str(free_port())
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [part.format(port=port) for part in map(str, command)],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'services'}", "PORT": port, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        client = Client(f"http://127.0.0.1:{port}")
        started.append((process, client))

        def is_up():
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/healthz").ok
            except requests.ConnectionError:
                return False

        eventually(is_up, 30)
        return client, log

    yield run
    for process, client in started:
        client.session.close()
        processes.end(process, 20)


def sent(client, collector):
    """The spans of a request that is full of what is personal."""
    answer = client.get("/hello/canary-name?q=canary-query", headers={**HEADERS, "tracestate": "v=canary"})
    assert answer.json() == {"greeting": "Hello, canary-name!"}
    spans = {span.name: span for span in collector.trace(answer.headers["traceresponse"].split("-")[1], 3)}
    assert spans.keys() == {"GET /hello/{name}", "early", "choose words"}  # and so of the request there is one
    request = spans["GET /hello/{name}"]
    assert (request.kind, request.attributes["http.route"]) == ("SERVER", "/hello/{name}")
    assert {spans["early"].parent_id, spans["choose words"].parent_id} == {request.span_id}
    return spans


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("names", ["", "http", "http/dup"])
def test_under_opentelemetry_instrument_what_is_personal_stays_here(start, collector, server, names):
    client, log = start(
        [INSTRUMENT, *SERVERS[server]],
        **WORDS,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_SEMCONV_STABILITY_OPT_IN=names,
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST=".*",
        OTEL_SERVICE_NAME="usher",
    )
    spans = sent(client, collector)
    assert {span.service for span in spans.values()} == {"usher"}
    assert all(b"canary" not in body for body in collector.bodies)
    assert {"other", "shelf.words"} == spans["early"].attributes.keys()
    assert "setting_ignored" not in log.read_text()
    assert "spans_not_cut" not in log.read_text()


def test_under_opentelemetry_instrument_the_applications_list_counts(start, collector):
    client, _ = start(
        [INSTRUMENT, *SERVERS["servicekit's"]],
        **WORDS,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="100",
        LISTED="shelf.,http.",
    )
    spans = sent(client, collector)
    assert spans["early"].attributes == {"shelf.words": 2}
    assert all(name.startswith("http.") for name in spans["GET /hello/{name}"].attributes)
    assert all(b"canary" not in body for body in collector.bodies)


def test_spans_of_a_provider_of_ones_own_are_cut(start, collector):
    client, log = start(SERVERS["servicekit's"], PROVIDER="own", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    spans = sent(client, collector)
    assert {span.service for span in spans.values()} == {"unknown_service:python"}  # as its maker left it
    assert all(b"canary" not in body for body in collector.bodies)
    assert "spans_not_cut" not in log.read_text()


PERSONAL = {"url.path": "canary", "own": 1, "other": 2}


def keeps(provider):
    """Where this provider's spans are kept."""
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return kept


def attributes(kept):
    """Those of the last span."""
    return dict(kept.get_finished_spans()[-1].attributes)


@pytest.mark.parametrize("processors", [None, ConcurrentMultiSpanProcessor])
def test_processors_that_come_later_and_tracers_that_were_there_before_are_cut_as_well(otel, processors):
    del otel
    provider = TracerProvider(active_span_processor=processors and processors())
    trace.set_tracer_provider(provider)
    first, tracer = keeps(provider), provider.get_tracer("before")
    begun = tracer.start_span("open", attributes=PERSONAL)
    Service("parcel-service")
    second = keeps(provider)
    begun.end()
    assert attributes(first) == attributes(second) == {"own": 1, "other": 2}
    tracer.start_span("work", attributes=PERSONAL).end()
    assert attributes(first) == attributes(second) == {"own": 1, "other": 2}


def test_of_two_apps_with_different_lists_only_what_both_allow_leaves(otel, collector):
    otel.to(collector.endpoint)
    Service("first", application=Application("first", span_attributes={"url.path", "own", "other"}))
    provider = trace.get_tracer_provider()
    provider.get_tracer("mine").start_span("alone", attributes=PERSONAL).end()
    assert collector.one("alone").attributes == PERSONAL
    for _ in range(2):
        Service("second", application=Application("second", span_attributes={"own", "more"}))
    provider.get_tracer("mine").start_span("both", attributes=PERSONAL).end()
    assert collector.one("both").attributes == {"own": 1}


class Foreign(trace.TracerProvider):
    """A provider that is not the SDK's."""

    def get_tracer(self, *_arguments, **_named):
        return trace.NoOpTracer()

    def shutdown(self):
        """For the fixture."""


def test_a_provider_whose_spans_cannot_be_cut_is_told(otel, collector):
    otel.to(collector.endpoint)
    trace.set_tracer_provider(Foreign())
    with capture_logs() as told:
        kit = Service("parcel-service")
    assert [(line["event"], line["provider"]) for line in told] == [
        ("telemetry.spans_not_cut", f"{__name__}.Foreign")
    ]  # fmt: skip
    with kit.tracer.root("work", {"url.path": "canary", "own": 1}):
        pass
    assert collector.one("work").attributes == {"own": 1}  # the kit's own are cut, wherever they go


def test_an_sdk_that_has_become_another_is_told(otel):
    del otel
    provider = TracerProvider()
    processors, provider._active_span_processor = provider._active_span_processor, object()
    trace.set_tracer_provider(provider)
    with capture_logs() as told:
        Service("parcel-service")
    assert [line["event"] for line in told] == ["telemetry.spans_not_cut"]
    provider._active_span_processor = processors


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_an_app_that_somebody_else_instruments_too_has_one_span_for_a_request(serve, exported, order):
    app = Flask("theirs")
    kit = Service("parcel-service")
    if order == "theirs first":
        FlaskInstrumentor.instrument_app(app)
    kit.instrument(app)
    if order == "ours first":
        FlaskInstrumentor.instrument_app(app)
    serve(app).get("/canary")
    span = exported.one("GET")
    assert [each.name for each in exported.settled()] == ["GET"]
    assert "canary" not in str(span)
