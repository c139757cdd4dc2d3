import random
import re
import string

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, Sampler, SamplingResult
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from servicekit.calls.client import ServiceClient
from servicekit.config import DatabaseSettings
from servicekit.database.pool import Database
from servicekit.telemetry.metrics import DatabaseMetrics, Metrics
from servicekit.telemetry.tracing import Tracer
from tests.fixtures.services import database_settings, eventually
from tests.servicekit.sample import sample_app

COUNT = "http_server_request_duration_seconds_count"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def client(serve):
    return serve(sample_app())


@pytest.fixture
def traced(serve, exported):
    return serve(sample_app())


def _series(client):
    families = parse_text(client.get("/metrics").text)
    return {(s.name, *sorted(s.labels.items())) for family in families for s in family.samples}


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/notes/7", "/notes/{note_id}", "200"),
        ("GET", "/notes/?limit=0", "/notes/", "422"),
        ("POST", "/notes/", "/notes/", "415"),
        ("GET", "/failures/unexpected", "/failures/{kind}", "500"),
        ("GET", "/notes/nobody", "unmatched", "404"),
        ("DELETE", "/notes/7", "unmatched", "405"),
        ("BREW", "/notes/7", "unmatched", "405"),
        ("GET", "/healthz", "/healthz", "200"),
    ],
)
def test_requests_are_counted_by_method_route_and_status(client, method, path, route, status):
    client(method, path)
    labels = {
        "http_request_method": "_OTHER" if method == "BREW" else method,
        "http_route": route,
        "http_response_status_code": status,
    }
    assert client.metric(COUNT, **labels) == 1


@pytest.mark.parametrize("name", ["client", "traced"])
def test_a_scan_of_random_paths_and_methods_adds_no_series(request, name):
    client = request.getfixturevalue(name)
    rng = random.Random(7)

    def scan(rounds):
        for _ in range(rounds):
            word = "".join(rng.choices(string.ascii_letters, k=8))
            for method, path in [
                ("GET", f"/{word}"),
                ("GET", f"/notes/{rng.randrange(1, 10**6)}"),
                ("GET", f"/notes/{word}?{word}={word}"),
                (word.upper(), "/notes/7"),
                (word.upper(), f"/{word}"),
            ]:
                client(method, path, headers={"traceparent": word})

    scan(1)
    _series(client)  # itself a request
    before = _series(client)
    scan(10)
    assert _series(client) == before


def test_the_format_is_negotiated(client):
    plain = client.get("/metrics", headers={"Accept": "text/plain"})
    assert plain.headers["Content-Type"].startswith("text/plain")
    rich = client.get("/metrics", headers={"Accept": OPENMETRICS})
    assert rich.headers["Content-Type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(rich.text))


def _exemplars(client):
    families = parse_openmetrics(client.get("/metrics", headers={"Accept": OPENMETRICS}).text)
    return [sample.exemplar.labels for family in families for sample in family.samples if sample.exemplar]


def test_an_exemplars_trace_id_is_the_responses(traced):
    response = traced.get("/notes/7")
    _, trace_id, span_id, _ = response.headers["traceresponse"].split("-")
    assert _exemplars(traced) == [{"trace_id": trace_id, "span_id": span_id}]


def test_there_is_no_exemplar_where_there_will_be_no_trace(client, traced):
    client.get("/notes/7")  # of a service that sends no spans anywhere
    assert _exemplars(client) == []
    traced.get("/notes/7", headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"})
    assert _exemplars(traced) == []


class RecordOnly(Sampler):
    """Records spans for a processor in the process, and has none exported."""

    def should_sample(self, *_args, **_named):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self):
        return "RecordOnly"


@pytest.mark.parametrize(("sampler", "opens"), [(ALWAYS_ON, True), (RecordOnly(), False)])
def test_each_latency_names_the_span_it_was_measured_in_if_that_is_exported(sampler, opens):
    metrics = Metrics()
    database = DatabaseMetrics(metrics)
    with TracerProvider(sampler=sampler).get_tracer("test").start_as_current_span("work") as span:
        metrics.request_ended("GET", "/notes/{note_id}", 200, 0.02)
        metrics.call_ended("things", "GET", "/things", None, 0.02)
        database.query_ended("SELECT notes", ok=False, seconds=0.02)
        database.connection_taken(0.02)
    context = span.get_span_context()
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    text = metrics.expose(OPENMETRICS)[0].decode()
    found = {
        sample.name: (sample.labels["le"], sample.exemplar.labels, sample.exemplar.value)
        for family in parse_openmetrics(text)
        for sample in family.samples
        if sample.exemplar
    }
    names = (
        "http_server_request_duration_seconds_bucket",
        "http_client_request_duration_seconds_bucket",
        "db_client_operation_duration_seconds_bucket",
        "db_client_connection_wait_time_seconds_bucket",
    )
    assert found == (dict.fromkeys(names, ("0.025", ids, 0.02)) if opens else {})
    assert "_created" not in text


def test_an_app_may_choose_its_buckets():
    metrics = Metrics(buckets=(0.5, 60))
    DatabaseMetrics(metrics).query_ended("SELECT notes", ok=True, seconds=30.0)
    metrics.request_ended("GET", "/notes/{note_id}", 200, 0.5)
    bounds = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bounds.setdefault(family.name, []).append((sample.labels["le"], sample.value))
    assert bounds == {
        "http_server_request_duration_seconds": [("0.5", 1), ("60.0", 1), ("+Inf", 1)],
        "db_client_operation_duration_seconds": [("0.5", 0), ("60.0", 1), ("+Inf", 1)],
        "db_client_connection_wait_time_seconds": [("0.5", 0), ("60.0", 0), ("+Inf", 0)],
    }


def test_what_is_served_now_is_counted_and_goes_back(client):
    client.get("/failures/unexpected")
    client.get("/nowhere")
    assert eventually(lambda: client.metric("http_server_active_requests") == 1)  # the question itself


def test_counters_are_there_at_0_from_the_start(serve, peer):
    metrics = Metrics()
    client = serve(
        sample_app(metrics=metrics, peer=ServiceClient("things", peer().root, metrics, Tracer(), timeout_seconds=1.0))
    )
    text = client.get("/metrics").text
    assert re.search(r'^http_client_retries_total\{peer_service="things"\} 0\.0$', text, re.MULTILINE)
    assert "db_client" not in text  # it has no database, and so nothing to say about it


def test_runtime_metrics_are_there_and_created_series_are_not(client):
    text = client.get("/metrics").text
    assert "process_resident_memory_bytes" in text
    assert "python_gc_objects_collected_total" in text
    assert "_created" not in text


def test_two_apps_in_one_process_count_apart(serve):
    first, second = serve(sample_app()), serve(sample_app())
    first.get("/notes/7")
    assert first.metric(COUNT, http_route="/notes/{note_id}") == 1
    assert second.metric(COUNT, http_route="/notes/{note_id}") == 0


def test_switched_off_nothing_is_measured_and_who_asks_is_told_why(serve, peer, database):
    metrics = Metrics(enabled=False)
    things = peer()
    things.expect_request("/things/7").respond_with_json({})
    where = DatabaseSettings(**database_settings(database, "users_app"))
    client = serve(
        sample_app(
            metrics=metrics,
            peer=ServiceClient("things", things.root, metrics, Tracer(), timeout_seconds=1.0),
            database=Database(where, "sample", metrics, Tracer()),
        )
    )
    before = _counted(metrics)
    for path in ("/notes/7", "/calls/7", "/rows/0"):
        assert client.get(path).status_code == 200
    assert _counted(metrics) == before
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert "OTEL_METRICS_EXPORTER" in answer.json()["detail"]


def _counted(metrics):
    families = [family for family in metrics.registry.collect() if family.name.startswith(("http_", "db_client_op"))]
    return [sample for family in families for sample in family.samples]
