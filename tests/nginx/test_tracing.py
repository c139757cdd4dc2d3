"""W3C trace context through the gateway (https://www.w3.org/TR/trace-context/)."""

import re

import pytest

from tests.fixtures.gateway import SERVICE_TRACERESPONSE
from tests.fixtures.traceparents import INVALID, PARENT, TRACE, VALID

FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-(0[0-3])")


def sent_on(gateway, *headers, target="/orders/"):
    """Send a request; give what reached the service, taken apart, and the client's answer."""
    got = gateway.request("GET", target, *headers)
    (received,) = gateway.reached()
    (traceparent,) = received.values("traceparent")
    assert got.headers.get_all("traceresponse") == [traceparent]
    return FORM.fullmatch(traceparent).groups(), received, got


def test_without_a_traceparent_a_new_trace_begins(gateway):
    (trace, span, flags), received, _ = sent_on(gateway, "tracestate: a=1")
    assert flags == "01"
    assert received.values("tracestate") == []
    line = gateway.log_line(trace_id=trace)
    assert (line["span_id"], line["parent_span_id"], line["trace_flags"]) == (span, "", "01")


@pytest.mark.parametrize(
    ("inbound", "flags"),
    [
        (VALID, "01"),
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"00-{TRACE}-{PARENT}-03", "03"),
        (f"00-{TRACE}-{PARENT}-02", "02"),
        (f"00-{TRACE}-{PARENT}-ff", "03"),
        (f"00-{TRACE}-{PARENT}-08", "00"),
        (f"cc-{TRACE}-{PARENT}-01", "01"),
        (f"01-{TRACE}-{PARENT}-01-what-the-future-will-bring", "01"),
        (f"fe-{TRACE}-{PARENT}-00", "00"),
        (f" {VALID} ", "01"),
    ],
)
def test_a_valid_traceparent_is_continued_with_its_decision(gateway, inbound, flags):
    (trace, span, sent_flags), received, _ = sent_on(gateway, f"traceparent: {inbound}", "tracestate: a=1,b=2")
    assert (trace, sent_flags) == (TRACE, flags)
    assert span not in {PARENT, TRACE[:16], TRACE[16:]}
    assert received.values("tracestate") == ["a=1,b=2"]
    line = gateway.log_line(span_id=span)
    assert (line["parent_span_id"], line["trace_flags"]) == (PARENT, flags)


@pytest.mark.parametrize("inbound", INVALID.values(), ids=INVALID)
def test_an_invalid_traceparent_counts_as_none(gateway, inbound):
    unsampled = re.sub("-01", "-00", inbound)  # a decision that would show
    (trace, span, flags), received, _ = sent_on(gateway, f"traceparent: {unsampled}", "tracestate: a=1")
    assert trace != TRACE
    assert flags == "01"
    assert received.values("tracestate") == []
    assert gateway.log_line(trace_id=trace, span_id=span)["parent_span_id"] == ""


def test_a_second_traceparent_does_not_reach_the_service(gateway):
    other = "b" * 32
    (trace, _, _), _, _ = sent_on(gateway, f"traceparent: {VALID}", f"traceparent: 00-{other}-{PARENT}-01")
    assert trace != other


@pytest.mark.parametrize(("length", "expected"), [(512, 512), (513, 0)])
def test_a_tracestate_is_handed_on_whole_or_not_at_all(gateway, length, expected):
    state = "a=" + "1" * (length - 2)
    _, received, _ = sent_on(gateway, f"traceparent: {VALID}", f"tracestate: {state}")
    assert received.values("tracestate") == ([state] if expected else [])


def test_each_request_gets_a_span_of_its_own(gateway):
    spans = {gateway.request("GET", "/orders/", f"traceparent: {VALID}").headers["traceresponse"] for _ in range(50)}
    assert len(spans) == 50


@pytest.mark.parametrize(("target", "status"), [("/nowhere", 404), ("/healthz", 200), ("/orders", 308)])
def test_the_gateways_own_answers_are_part_of_the_trace_too(gateway, target, status):
    got = gateway.request("GET", target, f"traceparent: {VALID}")
    assert got.status == status
    assert got.trace_id == TRACE
    if status == 404:
        assert got.json()["trace_id"] == TRACE


def test_a_share_of_new_traces_is_sampled_and_a_clients_decision_stands(start_gateway):
    gateway = start_gateway(GATEWAY_SAMPLE_PERCENT="50")
    flags = [gateway.request("GET", "/orders/1").headers["traceresponse"][-2:] for _ in range(100)]
    assert set(flags) == {"00", "01"}
    assert 20 <= flags.count("01") <= 80
    for decision in ("00", "01"):
        got = {
            gateway.request("GET", "/orders/1", f"traceparent: 00-{TRACE}-{PARENT}-{decision}").headers["traceresponse"]
            for _ in range(20)
        }
        assert {answer[-2:] for answer in got} == {decision}


def test_switched_off_the_context_passes_through_and_the_services_answer_counts(start_gateway):
    gateway = start_gateway(GATEWAY_TRACING="off")
    got = gateway.request("GET", "/orders/", f"traceparent: {VALID}", "tracestate: a=1")
    (received,) = gateway.reached()
    assert received.values("traceparent") == [VALID]
    assert received.values("tracestate") == ["a=1"]
    assert got.headers.get_all("traceresponse") == [SERVICE_TRACERESPONSE]
    line = gateway.log_line(trace_id="a" * 32)
    assert (line["span_id"], line["parent_span_id"], line["trace_flags"]) == ("", "", "")


def test_switched_off_the_gateway_adds_no_context_and_its_errors_are_still_found_in_the_log(start_gateway):
    gateway = start_gateway(GATEWAY_TRACING="off")
    gateway.request("GET", "/orders/")
    assert gateway.reached()[0].values("traceparent") == []
    got = gateway.request("GET", "/nowhere")
    assert "traceresponse" not in got.headers
    assert gateway.log_line(trace_id=got.json()["trace_id"])["status"] == 404
