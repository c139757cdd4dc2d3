import re
from http import HTTPStatus
from typing import ClassVar

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.calls.client import ServiceClient
from servicekit.telemetry import logs, tracing
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from tests.servicekit.sample import sample_app

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def _ids(response):
    return FORM.fullmatch(response.headers["traceresponse"]).groups()


@pytest.fixture
def things(peer):
    server = peer()
    server.expect_request("/things/7").respond_with_json({})
    return server


@pytest.fixture
def client(serve, things):
    metrics = Metrics()
    return serve(
        sample_app(
            metrics=metrics, peer=ServiceClient("things", things.root, metrics, tracing.Tracer(), timeout_seconds=2.0)
        )
    )


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_a_valid_trace_is_continued_with_its_flags(client, flags):
    response = client.get("/notes/7", headers={"traceparent": f"00-{TRACE}-{SPAN}-{flags}"})
    trace_id, span_id, given = _ids(response)
    assert (trace_id, given) == (TRACE, flags)
    assert span_id != SPAN


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "garbage",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-zz",
    ],
)
def test_without_a_valid_trace_a_new_sampled_one_begins(client, traceparent):
    headers = {} if traceparent is None else {"traceparent": traceparent}
    trace_id, _, flags = _ids(client.get("/notes/7", headers=headers))
    assert trace_id.lower() not in {TRACE, "0" * 32}
    assert flags == "01"


def test_two_requests_have_different_traces(client):
    assert _ids(client.get("/notes/7"))[0] != _ids(client.get("/notes/7"))[0]


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/failures/unexpected", "/notes/?limit=0"])
def test_every_answer_says_its_trace(client, path):
    response = client.get(path)
    trace_id = _ids(response)[0]
    assert response.status_code == 200 or response.json()["trace_id"] == trace_id


def test_a_call_to_a_peer_carries_the_trace_this_requests_span_and_the_tracestate(client, things):
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=value,other=1"}
    trace_id, span_id, _ = _ids(client.get("/calls/7", headers=headers))
    (request, _), *_ = things.log
    assert trace_id == TRACE
    assert request.headers["traceparent"] == f"00-{trace_id}-{span_id}-01"
    assert request.headers["tracestate"] == "vendor=value,other=1"


def test_a_broken_tracestate_does_not_break_the_trace(client):
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "===,,;\t"}
    assert _ids(client.get("/notes/7", headers=headers))[0] == TRACE


def test_baggage_is_handed_on(client, things):
    client.get("/calls/7", headers={"baggage": "tenant=seven"})
    assert things.log[0][0].headers["baggage"] == "tenant=seven"


def test_work_outside_of_any_trace_has_no_ids():
    assert tracing.current_ids() is None
    assert tracing.traceparent() is None


def test_a_trace_of_its_own_ends_with_its_work():
    with tracing.Tracer().root("work", {}):
        outer = tracing.current_ids()
        with tracing.Tracer().root("work", {}):
            assert tracing.current_ids()[0] != outer[0]
        assert tracing.current_ids() == outer
    assert tracing.current_ids() is None


def test_a_setting_that_cannot_be_is_told_by_name_and_not_by_value(otel):
    otel(propagators="canary")
    with capture_logs() as logged:
        Telemetry("sample", CollectorRegistry())
    told = [line for line in logged if line["event"] == "telemetry.setting_ignored"]
    assert [(line["log_level"], line["variable"]) for line in told] == [("warning", "OTEL_PROPAGATORS")]
    assert "canary" not in str(logged)


class House(TextMapPropagator):
    """Carries the context as `x-house-ids: <trace>.<span>` and baggage as `house-<key>`, as Jaeger's does."""

    fields: ClassVar = {"X-House-Ids"}

    def extract(self, carrier, context=None, getter=None):
        for key in getter.keys(carrier):
            if key.startswith("house-"):
                context = baggage.set_baggage(key.removeprefix("house-"), getter.get(carrier, key)[0], context)
        given = getter.get(carrier, "X-House-Ids")
        if not given:
            return context
        trace_id, span_id = (int(part, 16) for part in given[0].split("."))
        parent = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), context)

    def inject(self, carrier, context=None, setter=None):
        del setter
        span = trace.get_current_span(context).get_span_context()
        carrier["x-house-ids"] = f"{span.trace_id:032x}.{span.span_id:016x}"
        for key, value in baggage.get_all(context).items():
            carrier[f"house-{key}"] = str(value)


@pytest.fixture
def house():
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(House())
    yield
    propagate.set_global_textmap(before)


IDS = {"X-House-Ids": f"{'a' * 32}.{'b' * 16}", "House-Tenant": "7", "traceparent": f"00-{'c' * 32}-{'d' * 16}-01"}


@pytest.mark.parametrize("recorded", [True, False])
def test_whatever_carries_the_context_it_is_continued_though_nothing_is_recorded(
    otel, collector, serve, peer, house, recorded
):
    del house
    if recorded:
        otel.to(collector.endpoint)
    things = peer()
    things.expect_request("/things/7").respond_with_json({})
    metrics = Metrics()
    telemetry = Telemetry("sample", metrics.registry)
    caller = ServiceClient("things", things.root, metrics, telemetry.tracer, timeout_seconds=2.0)
    client = serve(sample_app(metrics=metrics, telemetry=telemetry, peer=caller))
    with capture_logs([logs.add_trace_ids]) as told:
        answer = client.get("/calls/7", headers=IDS)
    assert answer.headers["traceresponse"].split("-")[1] == "a" * 32
    assert {line["trace_id"] for line in told} == {"a" * 32}
    handed_on = things.log[0][0].headers
    assert handed_on["X-House-Ids"].split(".")[0] == "a" * 32
    assert handed_on["House-Tenant"] == "7"
    probe = client.get("/healthz", headers=IDS)
    assert probe.headers["traceresponse"].split("-")[1] == "a" * 32


@pytest.mark.parametrize("recorded", [True, False])
def test_what_is_no_request_is_refused_in_the_trace_that_it_names(otel, collector, house, recorded):
    del house
    if recorded:
        otel.to(collector.endpoint)
    server = sample_app().extensions["server"]
    answer = server.refusal(HTTPStatus.BAD_REQUEST, b"GET / HTTP/9.9\r\nx-house-ids: " + IDS["X-House-Ids"].encode())
    assert b"traceresponse: 00-" + b"a" * 32 in answer
