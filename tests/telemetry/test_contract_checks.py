"""The checks themselves: what is missing and what is undeclared is found, whatever kind of thing it is."""

import copy
import json
from dataclasses import replace

import pytest
import yaml
from pydantic import ValidationError

from observability.contract import (
    Contract,
    ContractError,
    SeenLine,
    check_edges,
    check_lines,
    check_metrics,
    check_spans,
    check_trace,
    metrics_of,
    spans_of,
)

SMALL = yaml.safe_load(r"""
values:
  methods: [GET, POST]
resource: {service.name: {values: [$services]}}
span_events: {creak: {creak.kind: {values: [$methods]}, creak.note: {when: it was loud}}}
stream_labels: {service_name: {values: [$services]}}
metadata:
  trace_id: {when: the line belongs to a trace}
  span_id: {when: the line belongs to a trace}
  level: {}
line: {service: {values: [$services]}, event: {}, level: {values: [info, error]}}
target_labels: {job: {}}
services:
  door: {about: lets in, routes: {/shelf/: [GET]}}
  shelf:
    about: keeps
    routes: {/shelf/: [GET]}
    queries: [{summary: SELECT things}]
groups:
  - about: both
    services: [door, shelf]
    spans:
      - name: '{method} {route}'
        for_each: route
        other_methods: [$methods]
        kind: server
        attributes:
          http.request.method: {values: [$methods]}
          http.route: {values: [$routes]}
          http.response.status_code: {type: int, values: [200, 500]}
          error.type: {values: ['500'], when: the status is 500, tested_by: tests/x.py}
          retries: {type: int, when: there were some}
  - about: one
    services: [shelf]
    spans:
      - {name: '{summary}', for_each: query, kind: client, attributes: {db.query.summary: {}}}
      - {name: dust, kind: internal, links: the trace that made the dust}
    metrics:
      - {name: things_total, type: counter, says: Things., labels: {colour: {values: [red, blue]}}}
      - {name: lifts_seconds, type: histogram, exemplars: true, says: Lifting.}
      - {name: cracks, type: gauge, says: Cracks., tested_by: tests/x.py}
    events:
      - {name: thing.lifted, level: [info], says: Up., fields: {weight: {type: int}, note: {nullable: true}}}
      - {name: shelf.fell, level: [error], says: Down., tested_by: tests/x.py}
    plain_lines: [{pattern: 'creak!+', says: old wood}]
traces:
  look:
    about: A look.
    tree:
      door GET /shelf/:
        shelf GET /shelf/:
          shelf SELECT things:
          shelf dust ?:
  cleaning:
    about: Dust.
    tree:
      shelf dust:
""")

EXPOSITION = """\
# TYPE things counter
things_total{colour="red"} 1.0
things_total{colour="blue"} 0.0
# TYPE lifts_seconds histogram
lifts_seconds_bucket{le="1.0"} 1.0 # {trace_id="0af7"} 0.5
lifts_seconds_bucket{le="+Inf"} 1.0
lifts_seconds_count 1.0
lifts_seconds_sum 0.5
# EOF
"""


def span(number, service, kind, name, parent=None, links=(), **tags):
    references = [{"refType": "CHILD_OF", "traceID": "t", "spanID": parent}] if parent else []
    return {
        "traceID": "t",
        "spanID": number,
        "operationName": name,
        "processID": service,
        "references": references + [{"refType": "FOLLOWS_FROM", "traceID": one, "spanID": "9"} for one in links],
        "tags": [{"key": key.replace("__", "."), "value": value} for key, value in {"span.kind": kind, **tags}.items()],
        "logs": [],
        "startTime": 1,
        "duration": 1,
    }


def event(name, **fields):
    fields = {"event": name, **{key.replace("__", "."): value for key, value in fields.items()}}
    return {"timestamp": 1, "fields": [{"key": key, "value": value} for key, value in fields.items()]}


def creaking(name, **fields):
    return {**span("5", "shelf", "internal", "dust", links=["x"]), "logs": [event(name, **fields)]}


def request(method="GET"):
    return {"http__request__method": method, "http__route": "/shelf/", "http__response__status_code": 200}


TRACE = {
    "processes": {service: {"serviceName": service, "tags": []} for service in ("door", "shelf")},
    "spans": [
        span("1", "door", "server", "GET /shelf/", **request(), retries=1),
        span("2", "shelf", "server", "GET /shelf/", "1", **request()),
        span("3", "shelf", "client", "SELECT things", "2", db__query__summary="SELECT things"),
        {**span("4", "shelf", "internal", "dust", links=["other"]), "logs": [event("creak", creak__kind="GET")]},
    ],
}


def line(event="thing.lifted", **changes):
    fields = {"service": "shelf", "event": event, "level": "info", "trace_id": "t", "span_id": "2", "weight": 3}
    fields = {**fields, "note": None, **changes}
    metadata = {key: fields[key] for key in ("trace_id", "span_id", "level") if key in fields}
    return SeenLine({"service_name": "shelf"}, metadata, json.dumps(fields))


def contract(**changes):
    return Contract({**copy.deepcopy(SMALL), **changes})


def spans(*more, without=()):
    trace = {**TRACE, "spans": [one for one in TRACE["spans"] if one["spanID"] not in without] + list(more)}
    return list(spans_of(trace))


def edited(old, new):
    """The contract with a text changed everywhere."""
    return Contract(json.loads(json.dumps(SMALL).replace(old, new)))


def test_a_system_that_keeps_it_differs_in_nothing():
    assert not check_spans(contract(), spans(), "local")
    assert not check_edges(contract(), spans())
    assert not check_lines(contract(), [line(), SeenLine({"service_name": "shelf"}, {}, "creak!!")], "local")
    assert not check_metrics(contract(), metrics_of("shelf", EXPOSITION), "local")


CHECKS = {
    "spans": lambda contract: check_spans(contract, spans(), "local"),
    "edges": lambda contract: check_edges(contract, spans()),
    "lines": lambda contract: check_lines(contract, [line()], "local"),
    "metrics": lambda contract: check_metrics(contract, metrics_of("shelf", EXPOSITION), "local"),
}


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("dust", "polish", "spans"),
        ("SELECT things", "SELECT nothing", "spans"),
        ("SELECT things", "SELECT nothing", "edges"),
        ("/shelf/", "/wall/", "spans"),
        ("http.route", "http.path", "spans"),
        ("things_total", "goods_total", "metrics"),
        ("colour", "taste", "metrics"),
        ("thing.lifted", "thing.dropped", "lines"),
        ("weight", "mass", "lines"),
    ],
)
def test_another_name_in_the_contract_is_missing_and_the_real_one_undeclared(old, new, check):
    difference = CHECKS[check](edited(old, new))
    assert any(new in one for one in difference.missing), difference
    assert any(old in one for one in difference.undeclared), difference


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (span("5", "shelf", "internal", "sweep", "2"), "shelf internal sweep"),
        (span("5", "shelf", "client", "dust", links=["x"]), "shelf client dust"),
        (
            span("5", "door", "server", "GET /shelf/", **request(), url__query="q=1"),
            "door server GET /shelf/: url.query",
        ),
        (span("5", "door", "server", "GET /shelf/", **request("POST")), "http.request.method is 'POST'"),
        (span("5", "shelf", "internal", "dust"), "shelf internal dust: a link"),
        (span("5", "door", "server", "GET /shelf/", links=["x"], **request()), "door server GET /shelf/: a link"),
        (creaking("shelf fell"), "shelf internal dust: event shelf fell"),
        (creaking("creak", creak__kind="GET", message="no"), "shelf internal dust: event creak: message"),
        (creaking("creak", creak__kind="oak"), "shelf internal dust: event creak: creak.kind is 'oak'"),
        (creaking("creak"), "shelf internal dust: event creak: creak.kind"),
        ({**span("5", "shelf", "internal", "dust", links=["x"]), "logs": [{"fields": []}]}, "internal dust: event "),
        (span("5", "door", "server", "GET /shelf/", **request(), otel__status_description="no"), "status_description"),
        (
            span("5", "door", "server", "GET /shelf/", **request(), otel__scope__name="x"),
            "door's scope: otel.scope.name",
        ),
    ],
)
def test_one_span_that_is_not_as_declared_is_found(changed, said):
    assert said in str(check_spans(contract(), spans(changed), "local"))


def test_an_event_that_no_span_has_is_missing():
    silent = check_spans(contract(), spans(without="4"), "local").missing
    assert "event creak, in any span" in silent


def test_a_span_without_a_required_attribute_is_found():
    lacking = {key: value for key, value in request().items() if "status" not in key}
    found = check_spans(contract(), spans(span("5", "door", "server", "GET /shelf/", **lacking)), "local")
    assert found.missing == {"door server GET /shelf/: http.response.status_code"}


def test_a_span_that_is_never_seen_is_missing_unless_it_need_not_be_there():
    assert check_spans(contract(), spans(without="3"), "local").missing == {"shelf client SELECT things"}
    assert "POST" not in str(check_spans(contract(), [], "local").missing)


def test_what_is_there_at_times_is_there_at_least_once():
    fresh = [one for one in spans() if "retries" not in one.attributes]
    assert "retries, in any span" in check_spans(contract(), fresh, "local").missing
    assert "note, in any line" not in check_lines(contract(), [line()], "local").missing


def test_what_only_one_mode_has_is_not_missing_in_the_other():
    local = {**SMALL, "span_events": {}, "groups": [{**group, "only_in": ["local"]} for group in SMALL["groups"]]}
    assert check_spans(Contract(local), [], "local").missing
    assert not check_spans(Contract(local), [], "compose").missing
    assert not check_lines(Contract(local), [], "compose").missing
    assert not check_metrics(Contract(local), [], "compose").missing


def test_an_attribute_that_only_some_modes_have_is_missing_there_and_undeclared_elsewhere():
    rule = {"pod": {"only_in": ["kubernetes"]}}
    placed = Contract(
        {**SMALL, **{part: {**SMALL[part], **rule} for part in ("resource", "stream_labels", "metadata", "line")}}
    )
    without = check_spans(placed, spans(), "kubernetes")
    without |= check_lines(placed, [line()], "kubernetes")
    assert {one for one in without.missing if one.endswith(": pod")} == {
        "door's resource: pod",
        "shelf's resource: pod",
        "shelf's stream labels: pod",
        "shelf thing.lifted, metadata: pod",
        "shelf thing.lifted: pod",
    }
    assert not check_spans(placed, spans(), "local")
    assert not check_lines(placed, [line()], "compose")
    (one, *_) = spans()
    named = replace(one, resource={**one.resource, "pod": "x"})
    assert check_spans(placed, [named], "local").undeclared == {f"{one.service}'s resource: pod"}
    assert not check_spans(placed, [named], "kubernetes").undeclared


def test_an_edge_that_is_not_declared_and_a_parent_that_is_not_there_are_found():
    found = check_edges(contract(), spans(span("5", "shelf", "client", "SELECT things", "1")))
    assert found.undeclared == {"shelf client SELECT things <- door server GET /shelf/"}
    found = check_edges(contract(), spans(without="2"))
    assert found.undeclared == {"shelf client SELECT things has a parent that is not there"}
    assert "shelf server GET /shelf/ <- door server GET /shelf/" in found.missing
    found = check_edges(contract(), spans(span("5", "shelf", "client", "SELECT things")))
    assert found.undeclared == {"shelf client SELECT things is a root"}


def test_a_trace_is_complete_with_each_span_once():
    inside = span("4", "shelf", "internal", "dust", "2", links=["other"])
    assert not check_trace(contract(), "look", spans(without="4"))
    assert not check_trace(contract(), "look", spans(inside, without="4"))
    assert "is missing" in str(check_trace(contract(), "look", spans(without="34")))
    twice = span("5", "shelf", "client", "SELECT things", "2", db__query__summary="SELECT things")
    assert "is there 2 times" in str(check_trace(contract(), "look", spans(twice, without="4")))
    assert "is not declared" in str(check_trace(contract(), "look", spans()))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (line("thing.stolen"), "shelf thing.stolen"),
        (line(colour="red"), "shelf thing.lifted: colour"),
        (line(weight="3"), "weight is '3', which is no int"),
        (line(weight=True), "weight is True, which is no int"),
        (line(level="error"), "shelf thing.lifted: level error"),
        (line(trace_id=None), "thing.lifted: trace_id is null"),
        (SeenLine({"service_name": "shelf"}, {}, "creak?"), "a line that is no JSON"),
        (SeenLine({"service_name": "shelf", "pod": "x"}, {}, "creak!"), "shelf's stream labels: pod"),
        (SeenLine({"service_name": "shelf"}, {**line().metadata, "x": "y"}, line().text), "metadata: x"),
        (SeenLine({"service_name": "shelf"}, {"level": "info"}, line().text), "not the same in metadata and line"),
    ],
)
def test_one_line_that_is_not_as_declared_is_found(changed, said):
    assert said in str(check_lines(contract(), [line(), changed], "local"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("red", "green", "shelf things_total: colour is 'green'"),
        ("# TYPE things counter", "# TYPE things_total gauge", "shelf things_total is a gauge"),
        (' # {trace_id="0af7"} 0.5', "", "shelf lifts_seconds: exemplars"),
        ("# EOF", "# TYPE dents gauge\ndents 1.0\n# EOF", "shelf dents"),
        ("# EOF", '# TYPE cracks gauge\ncracks{depth="1"} 1.0\n# EOF', "shelf cracks: depth"),
    ],
)
def test_one_metric_that_is_not_as_declared_is_found(old, new, said):
    assert said in str(check_metrics(contract(), metrics_of("shelf", EXPOSITION.replace(old, new)), "local"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shelf SELECT things", "shelf SELECT nothing"),
        ("$routes", "$roads"),
        ('["door", "shelf"]', '["door", "roof"]'),
        ("says", "sais"),
        ("thing.lifted", "shelf.fell"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(old, new):
    with pytest.raises((ContractError, ValidationError)):
        Contract(json.loads(json.dumps(SMALL).replace(old, new, 1 if old.startswith("shelf") else -1)))
