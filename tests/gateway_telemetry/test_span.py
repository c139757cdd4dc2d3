"""A line of the log becomes the gateway's span."""

import json

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from servicekit.telemetry.exporting import ATTRIBUTES

from observability.gateway.line import Line, Vocabulary
from observability.gateway.settings import ROUTES
from observability.gateway.spans import span_of
from tests.fixtures.gateway_telemetry import LINE, SPAN, TRACE, access_line

VOCABULARY = Vocabulary.of(ROUTES)
END = 1_795_342_830_123_000_000  # LINE's timestamp


def span(**changes):
    line = Line.model_validate_json(access_line(**changes))
    context = line.recorded()
    return context and span_of(line, context, VOCABULARY)


def test_it_has_the_requests_ids_name_and_attributes():
    made = span(parent_span_id="b" * 16)
    assert (made.name, made.kind, made.status) == ("POST /orders/", SpanKind.SERVER, StatusCode.UNSET)
    assert f"{made.span_context.trace_id:032x} {made.span_context.span_id:016x}" == f"{TRACE} {SPAN}"
    assert f"{made.parent.trace_id:032x} {made.parent.span_id:016x}" == f"{TRACE} {'b' * 16}"
    assert made.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": "/orders/",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "server.port": 8080,
        "url.scheme": "http",
    }
    assert set(made.attributes) < ATTRIBUTES  # the exporter drops others


def test_without_a_parent_it_is_the_root():
    assert span().parent is None


@pytest.mark.parametrize(
    ("changes", "name", "absent"),
    [
        ({"http_route": "unmatched"}, "POST", "http.route"),
        ({"http_route": "/made/up"}, "POST", "http.route"),
        ({"method": "_OTHER", "http_route": "unmatched"}, "HTTP", "http.route"),
        ({"method": "BREW"}, "HTTP /orders/", None),
        ({"status": 0}, "POST /orders/", "http.response.status_code"),
        ({"protocol": ""}, "POST /orders/", "network.protocol.version"),
    ],
)
def test_what_is_not_known_is_not_said(changes, name, absent):
    made = span(**changes)
    assert made.name == name
    assert absent not in made.attributes


@pytest.mark.parametrize(("status", "failed"), [(0, False), (404, False), (499, False), (500, True), (504, True)])
def test_from_500_on_it_is_an_error(status, failed):
    made = span(status=status)
    assert (made.status is StatusCode.ERROR) == failed
    assert made.attributes.get("error.type") == (str(status) if failed else None)


@pytest.mark.parametrize(
    ("flags", "sampled"), [("01", True), ("03", True), ("ff", True), ("00", False), ("02", False), ("", False)]
)
def test_the_lowest_flag_decides(flags, sampled):
    assert (span(trace_flags=flags) is not None) == sampled


@pytest.mark.parametrize("ids", [{"span_id": ""}, {"trace_id": ""}, {"trace_id": "0" * 32}, {"span_id": "0" * 16}])
def test_without_ids_there_is_none(ids):
    assert span(**ids) is None


def test_it_lasts_from_the_start_to_the_end_of_its_last_millisecond():
    made = span(duration_s=0.012)
    assert (made.started_ns, made.ended_ns) == (END - 12_000_000, END + 1_000_000)
    assert span(timestamp="2026-11-22T11:20:30.123+01:00").ended_ns == made.ended_ns


def test_it_encloses_what_happened_while_nginx_had_the_request():
    """nginx reads its clock in whole milliseconds, cut off; a service reads nanoseconds."""
    for began, lasted in [(0, 1), (999_999, 1), (1, 999_998), (500_000, 12_345_678), (999_999, 3_000_001)]:
        child_start, child_end = END + began, END + began + lasted
        logged_start, logged_end = child_start // 10**6 * 10**6, child_end // 10**6 * 10**6
        made = span(
            timestamp=f"2026-11-22T10:20:30.{123 + (logged_end - END) // 10**6}Z",
            duration_s=(logged_end - logged_start) / 10**9,
        )
        assert made.started_ns <= child_start <= child_end <= made.ended_ns


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "yesterday"},
        {"timestamp": "2026-11-22T10:20:30.123"},
        {"timestamp": "1969-01-01T00:00:00Z"},
        {"timestamp": "9999-01-01T00:00:00Z"},
        {"status": 600},
        {"status": -1},
        {"status": None},
        {"duration_s": -0.1},
        {"duration_s": 1e300},
        {"upstream_duration_s": "one"},
        {"trace_id": TRACE.upper()},
        {"trace_id": f"{TRACE}\n"},
        {"span_id": "xyz"},
        {"trace_flags": "1"},
        {"scheme": "gopher"},
        {"protocol": "9.9"},
        {"server_name": "a b"},
        {"server_port": 0},
        {"service": "order-service"},
        {"event": "order.created"},
    ],
)
def test_what_nginx_never_writes_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Line.model_validate_json(access_line(**changes))


@pytest.mark.parametrize("missing", [name for name in LINE if name not in {"level", "bytes", "upstream_tries_s"}])
def test_a_line_that_lacks_something_is_refused(missing):
    with pytest.raises(ValueError, match=missing):
        Line.model_validate_json(json.dumps({name: value for name, value in LINE.items() if name != missing}))


def test_the_vocabulary_is_nginxs_table():
    assert {"/", "/healthz", "/orders/", "/orders/{order_id}", "/auth/.well-known/jwks.json"} < VOCABULARY.routes
    assert "unmatched" not in VOCABULARY.routes
    assert len(VOCABULARY.routes) == ROUTES.read_text().split("map $request_uri $malformed_uri")[0].count('"~^')
    assert VOCABULARY.services == {f"{name}-service" for name in ("auth", "user", "product", "order", "payment")}
