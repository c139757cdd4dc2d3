"""Telemetry never hurts the shop: what happens to spans, and to requests, while nobody takes the spans."""

import threading
import time

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._shared_internal import BatchProcessor

from servicekit.config import ServiceSettings
from servicekit.telemetry import exporting
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually
from tests.servicekit.sample import sample_app

PROCESSED = "otel_sdk_processor_span_processed_total"
EXPORTED = "otel_sdk_exporter_span_exported_total"
CLASSES = ("timeout", "unavailable", "rejected", "shutdown", "_OTHER")


@pytest.fixture(params=["lean", "sdk"])
def tracing(request):
    """What makes the spans."""
    return request.param


@pytest.fixture
def start(serve):
    """`start(endpoint)`: a client of a sample service that sends its spans there."""

    def run(endpoint, **settings):
        return serve(sample_app(settings=ServiceSettings(otel_exporter_otlp_endpoint=endpoint, **settings)))

    return run


@pytest.fixture
def told():
    """The exporter's log events: (event, error_type)."""
    events = []

    def keep(_logger, _method, event):
        if event["event"].startswith("telemetry."):
            events.append((event["event"], event.get("error_type")))
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[keep])
    yield events
    structlog.configure(processors=before)


def test_all_counters_are_there_at_0_from_the_start(start, collector):
    client = start(collector.endpoint)
    text = client.get("/metrics").text
    for error_type in ("", "queue_full"):
        assert f'{PROCESSED}{{error_type="{error_type}"}} 0.0' in text
    for error_type in ("", *CLASSES):
        assert f'{EXPORTED}{{error_type="{error_type}"}} 0.0' in text
    assert client.metric("otel_sdk_processor_span_queue_capacity") == exporting.QUEUE
    assert "otel_sdk_processor_span_queue_size 0.0" in text


def test_what_was_sent_is_counted_and_comes_within_a_second(start, collector, tracing):
    client = start(collector.endpoint, tracing=tracing)
    client.get("/notes/7")
    started = time.monotonic()
    collector.one("GET /notes/{note_id}")
    assert time.monotonic() - started < 1
    assert eventually(lambda: client.metric(EXPORTED, error_type="")) == 1
    assert client.metric(PROCESSED, error_type="") == 1
    headers = collector.headers[0]
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("gzip", "application/x-protobuf")


@pytest.mark.parametrize(
    ("status", "retry_after", "error_type"),
    [(400, None, "rejected"), (413, None, "rejected"), (500, None, "unavailable"), (503, 60, "unavailable")],
)
def test_what_a_backend_refuses_is_counted_by_class(start, collector, told, status, retry_after, error_type):
    collector.status, collector.retry_after = status, retry_after
    client = start(collector.endpoint)
    client.get("/notes/7")
    assert eventually(lambda: client.metric(EXPORTED, error_type=error_type)) == 1
    assert client.metric(EXPORTED, error_type="") == 0
    assert told == [("telemetry.export_failed", error_type)]


def test_a_backend_that_is_not_there_is_told_once_and_again_when_it_is_back(start, start_collector, told):
    port = free_port()
    client = start(f"http://127.0.0.1:{port}")
    slowest = max(client.get("/notes/7").elapsed.total_seconds() for _ in range(50))
    assert slowest < 0.5
    eventually(lambda: client.metric(EXPORTED, error_type="unavailable") >= 50, 20)
    client.get("/notes/7")
    eventually(lambda: client.metric(EXPORTED, error_type="unavailable") >= 51, 20)
    assert told == [("telemetry.export_failed", "unavailable")]
    collector = start_collector(port)
    client.get("/notes/8")
    assert collector.one("GET /notes/{note_id}")
    eventually(lambda: len(told) == 2)
    assert told[1] == ("telemetry.export_resumed", None)


def test_a_short_pause_of_the_backend_loses_nothing(start, collector):
    collector.status, collector.retry_after = 503, 1
    client = start(collector.endpoint)
    client.get("/notes/7")
    eventually(lambda: collector.requests)
    collector.status = 200
    assert collector.one("GET /notes/{note_id}")


def exporters():
    return {thread for thread in threading.enumerate() if thread.name.startswith("OtelBatch")}


def test_a_frozen_backend_costs_no_request_and_what_the_queue_cannot_hold_is_counted(start, collector, monkeypatch):
    monkeypatch.setattr(exporting, "QUEUE", 20)
    monkeypatch.setattr(exporting, "BATCH", 10)
    collector.frozen.set()
    before = exporters()
    client = start(collector.endpoint)
    client.get("/notes/7")
    eventually(lambda: collector.requests)
    assert len(exporters() - before) == 1
    running = threading.active_count()
    slowest = max(client.get("/notes/7").elapsed.total_seconds() for _ in range(50))
    assert slowest < 0.5
    assert client.metric(PROCESSED, error_type="queue_full") >= 10
    assert client.metric("otel_sdk_processor_span_queue_size") <= 20
    assert len(exporters() - before) == 1
    eventually(lambda: threading.active_count() <= running)
    assert eventually(lambda: client.metric(EXPORTED, error_type="timeout"), 10)


def test_a_backend_that_hangs_does_not_hold_up_the_end_and_what_it_has_not_taken_is_told(collector, told):
    collector.frozen.set()
    telemetry = Telemetry("sample", ServiceSettings(otel_exporter_otlp_endpoint=collector.endpoint), Metrics())
    with telemetry.tracer.root("work", {}):
        pass
    eventually(lambda: collector.requests)
    with telemetry.tracer.root("work", {}):
        pass
    started = time.monotonic()
    telemetry.shutdown()
    assert time.monotonic() - started < 2
    assert told == [("telemetry.export_failed", "shutdown")]


def test_spans_that_a_backend_refuses_of_a_batch_it_takes_are_lost(start, collector, told):
    collector.answer = ExportTraceServiceResponse(partial_success={"rejected_spans": 1}).SerializeToString()
    client = start(collector.endpoint)
    client.get("/notes/7")
    eventually(lambda: client.metric(EXPORTED, error_type="rejected") == 1)
    assert told == [("telemetry.export_failed", "rejected")]
    collector.answer = b"nonsense"
    client.get("/notes/7")
    eventually(lambda: client.metric(EXPORTED, error_type="") >= 1)


def test_nothing_of_the_clients_waits_in_the_queue(start, collector, monkeypatch, tracing):
    queued = []
    monkeypatch.setattr(BatchProcessor, "emit", lambda _self, span: queued.append(span))
    start(collector.endpoint, tracing=tracing).get("/notes/7?q=canary", headers={"User-Agent": "canary"})
    (span,) = eventually(lambda: queued)
    assert set(span.attributes) <= exporting.ATTRIBUTES


@pytest.fixture
def telemetry(collector, tracing):
    """A service's, without a service."""
    settings = ServiceSettings(otel_exporter_otlp_endpoint=collector.endpoint, tracing=tracing)
    return Telemetry("sample", settings, Metrics())


def test_the_last_spans_are_sent_before_the_end(telemetry, collector):
    for _ in range(700):
        with telemetry.tracer.root("work", {}):
            pass
    telemetry.shutdown()
    assert len(collector.spans) == 700


def test_an_attribute_that_nobody_declared_stays_here(telemetry, collector):
    with telemetry.tracer.root("work", {"shop.order.id": 7, "user.email": "canary"}) as span:
        span.set("enduser.id", "canary")
    telemetry.shutdown()
    assert collector.one("work").attributes == {"shop.order.id": 7}


def test_without_an_endpoint_there_is_no_thread_and_no_metric(start):
    before = threading.active_count()
    telemetry = Telemetry("sample", ServiceSettings(), Metrics())
    assert threading.active_count() == before
    telemetry.shutdown()
    assert "otel_sdk" not in start(None).get("/metrics").text
