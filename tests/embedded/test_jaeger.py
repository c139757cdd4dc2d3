"""Jaeger's API where the real one cannot be asked: limits of this process. All else: tests/conformance."""

import threading
import time

from observability.embedded import jaeger, spans
from tests.conformance.payloads import order


def test_an_answer_that_would_be_too_much_is_refused(backend, monkeypatch):
    monkeypatch.setattr(jaeger, "MAX_ANSWER", 2**15)
    traces = [order(number) for number in range(4)]
    for trace in traces:
        for request in trace.requests():
            backend.spans.append(request.resource_spans, 0)
    assert backend.database.flush()
    client = backend.apps()["jaeger_port"].test_client()
    assert len(client.get("/api/traces?service=nginx&limit=2").json["data"]) == 2
    ids = "&".join(f"traceID={trace.hex}" for trace in traces)
    for path in ("/api/traces?service=nginx", f"/api/traces?{ids}"):
        answer = client.get(path)
        assert answer.status_code == 400
        assert "ask for fewer traces" in answer.get_json(force=True)["errors"][0]["msg"]


def test_a_search_that_takes_too_long_ends_with_an_error(backend, monkeypatch):
    def slow(connection, _query, _of_tags):
        connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
        return iter(())

    monkeypatch.setattr(spans, "candidates", slow)
    read = backend.database.read
    monkeypatch.setattr(backend.database, "read", lambda: read(0.1))
    client = backend.apps()["jaeger_port"].test_client()
    began = time.monotonic()
    answer = client.get("/api/traces?service=nginx")
    assert time.monotonic() - began < 5
    assert answer.status_code == 503
    assert "longer than 0.1 s" in answer.get_json(force=True)["errors"][0]["msg"]


def test_too_many_searches_at_once_are_told_so(backend, monkeypatch):
    monkeypatch.setattr(jaeger, "_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(jaeger, "_PARALLEL", 1)
    running, go = threading.Event(), threading.Event()

    def slow(_connection, _query, _of_tags):
        running.set()
        assert go.wait(10)
        return iter(())

    monkeypatch.setattr(spans, "candidates", slow)
    app = backend.apps()["jaeger_port"]
    first = threading.Thread(target=lambda: app.test_client().get("/api/traces?service=nginx"))
    first.start()
    try:
        assert running.wait(5)
        answer = app.test_client().get("/api/traces?service=nginx")
        assert answer.status_code == 503
        assert "too many searches" in answer.get_json(force=True)["errors"][0]["msg"]
        go.set()
        first.join(5)
        assert app.test_client().get("/api/traces?service=nginx").status_code == 200
    finally:
        go.set()
        first.join(5)


def test_only_get_is_answered_and_home_says_what_this_is(embedded):
    assert embedded.jaeger.post("/api/traces", {}).status_code == 405
    assert embedded.jaeger.post("/api/traces", {}).json()["errors"][0]["code"] == 405
    assert "/api/services" in embedded.jaeger.get("/").text
