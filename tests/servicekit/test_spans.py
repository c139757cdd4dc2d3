"""What leaves a service as spans, as a collector sees it: names, kinds, parents and attributes, and nothing else."""

import re
import time

import pytest
from flask import Blueprint
from structlog.testing import capture_logs

import shop
from servicekit.calls.client import ServiceClient
from servicekit.config import DatabaseSettings
from servicekit.database.pool import Database
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from tests.fixtures.otlp import values
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually
from tests.servicekit.sample import sample_app

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def start(serve, exported, database, otel):
    """A sample service whose spans go to the collector: `start(peer_root=..., **variables)` gives a client of it."""

    def run(peer_root=None, extra=(), timeout_seconds=5.0, **variables):
        otel(**variables)
        metrics = Metrics()
        telemetry = Telemetry("sample", metrics.registry, resource=shop.RESOURCE, attributes=shop.ATTRIBUTES)
        tracer = telemetry.tracer
        peer = peer_root and ServiceClient("things", peer_root, metrics, tracer, timeout_seconds=timeout_seconds)
        where = {name.lower(): value for name, value in database.env("users_app").items()}
        rows = Database(DatabaseSettings(**where, database_timeout_seconds=2), "sample", metrics, tracer)
        return serve(sample_app(metrics=metrics, telemetry=telemetry, peer=peer, database=rows, extra=extra))

    return run


@pytest.fixture
def client(start):
    return start()


def _port(client):
    return int(client.root.rpartition(":")[2])


def _ids(response):
    _, trace_id, span_id, _ = response.headers["traceresponse"].split("-")
    return trace_id, span_id


def _raised(span):
    """The types of its exceptions; each comes with its stack trace, and with nothing else."""
    found = []
    for event in span.events:
        attributes = values(event.attributes)
        found.append(attributes.pop("exception.type"))
        assert attributes.pop("exception.stacktrace").startswith("Traceback (most recent call last):\n  File ")
        assert (event.name, attributes.pop("exception.escaped", "False"), attributes) == ("exception", "False", {})
    return found


def test_a_request_is_a_server_span_with_just_these_attributes(client, collector):
    response = client.get("/notes/7?canary=1", headers={"User-Agent": "canary", "X-Forwarded-For": "canary"})
    span = collector.one("GET /notes/{note_id}")
    assert (span.trace_id, span.span_id) == _ids(response)
    assert (span.kind, span.parent_id, span.failed, span.message) == ("SERVER", "", False, "")
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/notes/{note_id}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "sample",
        "server.port": _port(client),
    }
    assert 0 < span.end_ns - span.start_ns < 5e9


def test_its_resource_says_whose_it_is(start, collector):
    start(resource_attributes="deployment.environment.name=somewhere").get("/notes/7")
    resource = collector.one("GET /notes/{note_id}").resource
    assert re.fullmatch("[0-9a-f-]{36}", resource.pop("service.instance.id"))
    assert resource.pop("telemetry.sdk.version")
    assert resource == {
        "service.name": "sample",
        "service.namespace": "shop",
        "service.version": shop.VERSION,
        "deployment.environment.name": "somewhere",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
    }


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/nowhere/canary", "GET", 404),
        ("DELETE", "/notes/7", "DELETE", 405),
        ("CANARY", "/notes/7", "HTTP", 405),
        ("QUERY", "/notes/canary", "HTTP", 404),
        ("POST", "/notes/", "POST /notes/", 415),
    ],
)
def test_what_is_refused_is_a_span_too_named_by_its_route_or_else_by_the_method(
    client, collector, method, path, name, status
):
    response = client(method, path)
    assert response.status_code == status
    span = collector.one(name, kind="SERVER")
    assert (span.trace_id, span.span_id) == _ids(response)
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes["http.request.method"] == ("_OTHER" if name == "HTTP" else method)
    assert ("http.route" in span.attributes) == (" " in name)
    assert not span.failed
    assert "error.type" not in span.attributes
    assert b"canary" not in b"".join(collector.bodies).lower()


@pytest.mark.parametrize(
    ("path", "status", "error_type"),
    [("/aborts/503", 503, "503"), ("/failures/unexpected", 500, "RuntimeError")],
)
def test_a_failed_request_says_so_by_type_and_without_a_message(client, collector, path, status, error_type):
    client.get(path)
    span = collector.one(f"GET {re.sub('/[^/]+$', '', path)}/{{{'status' if 'aborts' in path else 'kind'}}}")
    assert span.attributes["http.response.status_code"] == status
    assert (span.failed, span.attributes["error.type"]) == (True, error_type)
    assert (span.message, _raised(span)) == ("", ["RuntimeError"] * (error_type == "RuntimeError"))
    assert b"canary" not in b"".join(collector.bodies)


def test_an_exception_that_even_the_error_handlers_miss_leaves_no_message(start, collector, caplog):
    broken = Blueprint("broken", __name__)

    @broken.get("/broken/<name>")
    def answer(name):
        return {}

    @broken.after_request
    def fail(_response):
        raise RuntimeError("canary-message")

    client = start(extra=[broken])
    with capture_logs() as logged:
        response = client.get("/broken/canary-name")
    span = collector.one("GET /broken/{name}")
    assert (span.failed, span.message, set(_raised(span))) == (True, "", {"RuntimeError"})
    assert (span.attributes["error.type"], span.attributes["http.response.status_code"]) == ("RuntimeError", 500)
    # And it is answered, counted and logged as any other.
    assert (response.status_code, _ids(response)) == (500, (span.trace_id, span.span_id))
    assert response.json()["trace_id"] == span.trace_id
    assert client.metric("http_server_request_duration_seconds_count", http_route="/broken/{name}") == 1
    assert [event["status"] for event in logged if event["event"] == "request.completed"] == [500]
    told = [record.getMessage() for record in caplog.records if record.name != "werkzeug"]  # the test's own server
    assert "canary-name" not in f"{logged} {told}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/healthz?x=1"])
def test_a_probe_makes_no_span_and_has_ids_all_the_same(client, collector, path):
    assert _ids(client.get(path))
    client.get("/notes/7")
    assert {span.name for span in collector.settled()} == {"GET /notes/{note_id}"}


@pytest.mark.parametrize("query", ["x=/healthz", "/metrics", "x=http://h/healthz"])
def test_nobody_takes_a_request_out_of_the_traces_by_its_query(client, collector, query):
    client.get(f"/notes/7?{query}")
    assert collector.one("GET /notes/{note_id}")


@pytest.mark.parametrize("flags", ["01", "03"])
def test_a_sampled_trace_is_continued(client, collector, flags):
    client.get("/notes/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})
    span = collector.one("GET /notes/{note_id}")
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)


def test_an_unsampled_trace_stays_so(start, collector, peer):
    things = peer()
    things.expect_request("/things/7").respond_with_json({})
    client = start(things.root)
    response = client.get("/calls/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert response.headers["traceresponse"].startswith(f"00-{TRACE}-")
    assert response.headers["traceresponse"].endswith("-00")
    assert things.log[0][0].headers["traceparent"] == response.headers["traceresponse"]
    client.get("/notes/7")
    assert {span.name for span in collector.settled()} == {"GET /notes/{note_id}"}


def test_the_ratio_is_the_share_of_the_traces_that_begin_here(start, collector):
    client = start(traces_sampler="parentbased_traceidratio", traces_sampler_arg=0.1)
    kept = sum(client.get("/notes/7").headers["traceresponse"][-1] in "13" for _ in range(400))
    assert 10 <= kept <= 90
    assert len(collector.settled()) == kept
    client.get("/notes/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert collector.trace(TRACE, 1)


@pytest.mark.parametrize("header", ["traceparent", "tracestate", "baggage"])
def test_a_context_header_full_of_rubbish_costs_nothing_and_appears_nowhere(client, collector, header):
    for value in ("canary" * 500, "\xff\xfecanary", "00-canary-canary-01", "k=canary," * 200):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", header: value.encode("latin-1")}
        assert client.get("/notes/7", headers=headers).status_code == 200
    eventually(lambda: len(collector.named("GET /notes/{note_id}")) == 4)
    assert all(b"canary" not in body for body in collector.bodies)


def test_a_tracestate_is_handed_on_and_not_kept(start, collector, peer):
    things = peer()
    things.expect_request("/things/7").respond_with_json({})
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=canary"}
    start(things.root).get("/calls/7", headers=headers)
    assert things.log[0][0].headers["tracestate"] == "vendor=canary"
    assert collector.trace(TRACE, 2)
    assert all(b"canary" not in body for body in collector.bodies)


def test_a_call_is_a_client_span_and_its_context_is_what_is_sent(start, collector, peer):
    things = peer()
    things.expect_request("/things/7").respond_with_json({})
    trace_id, server_id = _ids(start(things.root).get("/calls/7"))
    span = collector.one("GET /things/{thing_id}")
    assert (span.kind, span.trace_id, span.parent_id) == ("CLIENT", trace_id, server_id)
    assert not span.failed
    assert span.attributes == {
        "http.request.method": "GET",
        "url.template": "/things/{thing_id}",
        "http.response.status_code": 200,
        "peer.service": "things",
        "server.address": "127.0.0.1",
        "server.port": things.port,
    }
    assert re.fullmatch(rf"00-{trace_id}-{span.span_id}-0[13]", things.log[0][0].headers["traceparent"])


@pytest.mark.parametrize(("status", "served"), [(404, 200), (503, 503)])
def test_a_call_that_is_answered_with_an_error_failed(start, collector, peer, status, served):
    things = peer()
    things.expect_request("/things/7").respond_with_data("", status=status)
    assert start(things.root).get("/calls/7").status_code == served
    span = collector.one("GET /things/{thing_id}")
    assert (span.failed, span.attributes["error.type"]) == (True, str(status))
    assert span.attributes["http.response.status_code"] == status


def test_a_call_that_nobody_answers_says_why_and_how_often_it_was_tried(start, collector):
    start(f"http://127.0.0.1:{free_port()}").get("/calls/7")
    span = collector.one("GET /things/{thing_id}")
    assert (span.failed, span.attributes["error.type"]) == (True, "NotConnectedError")
    assert span.attributes["http.request.resend_count"] == 1
    assert "http.response.status_code" not in span.attributes
    assert (span.message, _raised(span)) == ("", ["servicekit.web.errors.DependencyUnavailable"])


def test_a_call_that_is_not_made_because_its_peer_hangs_says_so(start, collector, peer):
    things = peer()
    things.expect_request("/things/7").respond_with_handler(lambda _: time.sleep(1))
    client = start(things.root, timeout_seconds=0.3)
    for _ in range(4):
        client.get("/calls/7")
    eventually(lambda: len(collector.named("GET /things/{thing_id}")) == 4)
    assert [span.attributes["error.type"] for span in collector.named("GET /things/{thing_id}")] == [
        *["AnswerTimeoutError"] * 3,
        "circuit_open",
    ]


def test_a_statement_is_a_client_span_with_its_template_and_never_its_values(client, collector, database):
    trace_id, server_id = _ids(client.get("/rows/0.125"))
    span = collector.one("SELECT pg_sleep")
    assert (span.kind, span.trace_id, span.parent_id) == ("CLIENT", trace_id, server_id)
    assert not span.failed
    assert span.attributes == {
        "db.system.name": "postgresql",
        "db.namespace": database.name,
        "db.operation.name": "SELECT",
        "db.collection.name": "pg_sleep",
        "db.query.summary": "SELECT pg_sleep",
        "db.query.text": "SELECT pg_sleep(%(seconds)s)",
        "server.address": database.host,
        "server.port": int(database.port),
    }
    assert b"0.125" not in b"".join(collector.bodies)


def test_a_statement_that_fails_says_so_by_type_and_sqlstate(client, collector):
    assert client.get("/rows/8").status_code == 503
    span = collector.one("SELECT pg_sleep")
    assert (span.failed, span.attributes["error.type"]) == (True, "QueryCanceled")
    assert span.attributes["db.response.status_code"] == "57014"
    assert (span.message, len(_raised(span))) == ("", 1)


def test_a_look_at_the_database_outside_of_a_trace_makes_none(client, collector):
    eventually(lambda: client.get("/readyz").status_code == 200)
    client.get("/notes/7")
    assert {span.name for span in collector.settled()} == {"GET /notes/{note_id}"}


def test_log_lines_exemplars_and_errors_carry_the_ids_of_the_requests_span(client, collector):
    response = client.get("/failures/unexpected")
    span = collector.one("GET /failures/{kind}")
    assert response.json()["trace_id"] == span.trace_id
    metrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
    assert f'trace_id="{span.trace_id}"' in metrics
    assert f'span_id="{span.span_id}"' in metrics


def test_each_span_names_what_made_it(client, collector):
    client.get("/rows/0")
    collector.one("GET /rows/{seconds}")
    assert {span.scope for span in collector.settled()} == {"servicekit", "opentelemetry.instrumentation.flask"}
