import re

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.calls.client import ServiceClient
from servicekit.telemetry import tracing
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
