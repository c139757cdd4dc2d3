"""How tests/compose/test_grafana.py asks Grafana, and reads its answers, tried on a stub."""

import pytest

from tests.compose import grafana
from tests.compose.grafana import Grafana, RefusedError, body_of
from tests.dashboards.reading import Query, load, of_panels

QUERY = Query("overview: Requests, A", "prometheus", {"refId": "A", "expr": "up", "range": True})
FRAME = {"schema": {"fields": []}, "data": {"values": [[1, 2], [0.5, 0.6]]}}


@pytest.fixture
def asked(httpserver):
    """Grafana's client, of a stub."""
    client = Grafana(httpserver.url_for("").rstrip("/"))
    yield client
    client.session.close()


def test_a_panels_query_goes_to_its_data_source_with_a_time_and_a_step():
    assert body_of(QUERY, 1_000_000.25) == {
        "queries": [
            {
                "refId": "A",
                "expr": "up",
                "range": True,
                "datasource": {"type": "prometheus", "uid": "prometheus"},
                "intervalMs": 15_000,
                "maxDataPoints": 100,
            }
        ],
        "from": "999400250",
        "to": "1000000250",
    }


def test_every_query_of_every_panel_can_be_asked():
    queries = list(of_panels(load()))
    assert len(queries) > 90
    for query in queries:
        (asked,) = body_of(query, 1_000_000)["queries"]
        assert asked["datasource"]["uid"] in {"prometheus", "loki", "jaeger"}
        assert asked["refId"] == query.place.rpartition(", ")[2]
        assert "$" not in str(asked.get("expr", "")).replace("$1", ""), "a variable without a value"


def answer_with(httpserver, body, status=200):
    httpserver.expect_ordered_request("/api/ds/query", method="POST").respond_with_json(body, status=status)


def test_an_answer_with_values_is_right(httpserver, asked):
    answer_with(
        httpserver, {"results": {"A": {"status": 200, "frames": [{"schema": {}, "data": {"values": []}}, FRAME]}}}
    )
    assert asked.fault(QUERY) is None
    (request, _), *_ = httpserver.log
    assert request.json["queries"][0]["expr"] == "up"
    assert "Authorization" not in request.headers


EMPTY = {"schema": {}, "data": {"values": [[], []]}}
SAID = {"schema": {"meta": {"notices": [{"severity": "error", "text": "too many series"}]}}, "data": {"values": [[1]]}}


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ({"results": {"A": {"status": 200, "frames": []}}}, 200, "no values"),
        ({"results": {"A": {"status": 200, "frames": [EMPTY]}}}, 200, "no values"),
        ({"results": {"A": {"status": 400, "error": "bad query"}}}, 200, "400 bad query"),
        ({"results": {"A": {"status": 500, "frames": [FRAME]}}}, 200, "500 None"),
        ({"results": {"A": {"frames": [SAID]}}}, 200, "too many series"),
        ({"results": {"B": {"frames": [FRAME]}}}, 200, "nothing under A"),
        ({"message": "An error occurred"}, 500, "500 {"),
        ({"message": "no rights"}, 403, "403 {"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(httpserver, asked, body, status, fault):
    answer_with(httpserver, body, status)
    assert asked.fault(QUERY).startswith(fault)


def test_where_all_is_well_some_panels_are_empty_and_may_be_but_not_refused(httpserver, asked):
    quiet = Query("overview: Alerts that fire, A", "prometheus", QUERY.fields)
    answer_with(httpserver, {"results": {"A": {"frames": []}}})
    assert asked.fault(quiet) is None
    answer_with(httpserver, {"results": {"A": {"status": 400, "error": "bad query"}}})
    assert asked.fault(quiet) == "400 bad query"


def test_an_answer_that_has_to_be_there_is_told_if_it_is_not(httpserver, asked):
    httpserver.expect_request("/api/search").respond_with_data("gone", status=502)
    with pytest.raises(AssertionError, match="/api/search: 502 gone"):
        asked.read("/api/search")
    with pytest.raises(RefusedError, match="502"):
        grafana.frames_of("A", asked.get("/api/search"))


@pytest.mark.parametrize(
    ("chosen", "environment", "expected"),
    [
        ("real", None, None),
        ("none", None, "COMPOSE_GRAFANA=none"),
        (None, '["PATH=/bin","GF_PATHS_HOME=/usr/share/grafana"]', None),
        (None, '["PATH=/bin"]', "is a stand-in here"),
        (None, None, "cannot be had: no route"),
    ],
)
def test_grafana_itself_is_told_from_what_stands_in_for_it(monkeypatch, tmp_path, chosen, environment, expected):
    (tmp_path / "docker").write_text(
        f"#!/bin/sh\n[ $1 = image ] && [ -s {tmp_path}/env ] && exec cat {tmp_path}/env\necho no route >&2; exit 1\n"
    )
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "env").write_text(environment or "")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(grafana.COMPOSE_GRAFANA, raising=False)
    if chosen:
        monkeypatch.setenv(grafana.COMPOSE_GRAFANA, chosen)
    told = grafana.missing.__wrapped__()
    assert told is None if expected is None else told.endswith(expected)
