"""Jaeger's API: the same requests to the embedded backend and to the real Jaeger, and the same answers from both.

The real Jaeger is its recording, and one that is there; see recordings/README.md.

The differences that are known, and in docs/embedded-backend.md, are in DIFFERENCES: each is one that no query of
Grafana, of `make story`, or of our tests can see. One that disappears fails its test, so that the table stays true.
"""

import json
import random

import pytest

from observability.embedded.spans import MAX_SPANS
from tests.conformance import payloads
from tests.conformance.recordings import AGE, Recording
from tests.fixtures.services import eventually

pytestmark = pytest.mark.xdist_group("conformance")

RECORDING = Recording("jaeger")
START = RECORDING.start
NOW_US = (START + AGE) // 1000
DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture(scope="module")
def sent(embedded, real_jaeger):
    """Every payload, sent to both, and searchable in both."""
    traces = {
        make.__name__: make(start=START + number * payloads.MS, ids=random.Random(make.__name__))
        for number, make in enumerate(
            (
                payloads.order,
                payloads.failed,
                payloads.attribute_types,
                payloads.odd_names,
                payloads.linked,
                payloads.short_id,
                payloads.skewed,
                payloads.nameless,
                payloads.long_value,
            )
        )
    }
    traces["older"] = payloads.order(8, start=START + AGE - 3600 * 10**9, ids=random.Random("older"))
    for trace in traces.values():
        for request in trace.requests():
            assert statuses(send(embedded, real_jaeger, request)) == [200, 200]
    for trace in traces.values():
        for api in (embedded.jaeger, real_jaeger.api):
            eventually(lambda api=api, trace=trace: len(spans_of(api, trace)) == len(trace.spans))
    return traces


def send(embedded, real_jaeger, request):
    """Send a request to both; the two answers."""
    return [otlp.send("traces", request) for otlp in (embedded.otlp, real_jaeger.otlp)]


def new_trace(name, **kwargs):
    """A trace whose ids are the same each time."""
    return payloads.Trace(**{"start": START, "ids": random.Random(name), **kwargs})


def statuses(answers):
    return [answer.status_code for answer in answers]


def spans_of(api, trace):
    answer = api.get(f"/api/traces/{trace.hex}").json()
    return answer["data"][0]["spans"] if answer["data"] else []


@pytest.fixture
def both(embedded, real_jaeger, sent):
    """Ask both the same; give the two answers in a form that can be compared."""

    def ask(path, **params):
        return [comparable(api.get(path, params=params)) for api in (embedded.jaeger, real_jaeger.api)]

    return ask


@pytest.fixture
def agreed(both):
    """Ask both, and fail unless they answer the same; the answer, as (status, type, body)."""

    def ask(path, **params):
        ours, real = both(path, **params)
        assert_same(ours, real)
        return real

    return ask


def comparable(answer):
    """Status, type and body, without what has no order: spans, processes, traces, and their names in this answer."""
    content_type = answer.headers["Content-Type"]
    body = json.loads(answer.text)
    if isinstance(body.get("data"), list):
        body["data"] = sorted((normal(one) for one in body["data"]), key=lambda one: json.dumps(one, sort_keys=True))
    return answer.status_code, content_type, body


def normal(one):
    if not isinstance(one, dict) or "processes" not in one:
        return one
    processes = one["processes"]
    spans = [{**span, "processID": processes[span["processID"]]} for span in one["spans"]]
    names = sorted(json.dumps(process, sort_keys=True) for process in processes.values())
    return {**one, "spans": sorted(spans, key=lambda span: span["spanID"]), "processes": names}


def assert_same(ours, real, where="answer"):
    """Compare, and name the place of the first difference: a whole trace printed shows nobody anything."""
    if isinstance(ours, dict) and isinstance(real, dict):
        assert list(ours) == list(real), where
        for key in ours:
            assert_same(ours[key], real[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple) and isinstance(real, list | tuple):
        assert len(ours) == len(real), where
        for index, pair in enumerate(zip(ours, real, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert ours == real, where


@pytest.mark.parametrize(
    "name",
    [
        "order",
        "failed",
        "attribute_types",
        "odd_names",
        "linked",
        "short_id",
        "skewed",
        "nameless",
        "long_value",
        "older",
    ],
)
def test_a_trace_is_the_same(agreed, sent, name):
    _, _, body = agreed(f"/api/traces/{sent[name].hex}")
    assert len(body["data"][0]["spans"]) == len(sent[name].spans)


def test_a_trace_is_found_however_its_id_is_written(agreed, sent):
    short = sent["short_id"].hex
    for text in (sent["order"].hex.upper(), short, short.lstrip("0"), short[16:]):
        assert agreed(f"/api/traces/{text}")[0] == 200


SEARCHES = {
    "service": {"service": "order-service"},
    "service that is not there": {"service": "none"},
    "service with odd characters": {"service": "odd/service name?&#%+é"},
    "operation": {"service": "order-service", "operation": "POST /orders/"},
    "operation of another service": {"service": "nginx", "operation": "settle order"},
    "operation with odd characters": {"service": "odd/service name?&#%+é", "operation": "операция ☃"},
    "tag": {"service": "order-service", "tag": "shop.order.id:7"},
    "tags": {"service": "order-service", "tags": '{"shop.order.id":"7","shop.order.status":"PAID"}'},
    "tags, one of which is absent": {"service": "order-service", "tags": '{"shop.order.id":"7","no":"way"}'},
    "tag with another value": {"service": "order-service", "tag": "shop.order.id:70"},
    "tag of another service": {"service": "product-service", "tag": "shop.order.id:7"},
    "tag with a colon": {"service": "order-service", "tag": "no:such:tag"},
    "two tags": {"service": "order-service", "tag": ["shop.order.id:8", "shop.order.status:PAID"]},
    "operation and tag": {"service": "payment-service", "operation": "decide charge", "tag": "shop.order.id:8"},
    "operation and tag of different spans": {
        "service": "order-service",
        "operation": "POST /orders/",
        "tag": "db.system.name:postgresql",
    },
    "error": {"service": "order-service", "tags": '{"error":"true"}'},
    "status": {"service": "order-service", "tag": "otel.status_code:ERROR"},
    "status text": {"service": "order-service", "tags": json.dumps({"otel.status_description": 'it said "no" <&> ☃'})},
    "kind": {"service": "order-service", "tag": "span.kind:server"},
    "kind that is not there": {"service": "order-service", "tag": "span.kind:producer"},
    "status code": {"service": "order-service", "tag": "http.response.status_code:500"},
    "resource": {"service": "order-service", "tag": "service.namespace:shop"},
    "resource, another value": {"service": "order-service", "tag": "service.namespace:other"},
    "resource and tag": {"service": "order-service", "tag": ["service.namespace:shop", "shop.order.id:7"]},
    "scope": {"service": "order-service", "tag": "otel.scope.name:opentelemetry.instrumentation.flask"},
    "event": {"service": "order-service", "tag": "exception.type:psycopg2.OperationalError"},
    "event name": {"service": "order-service", "tag": "event:exception"},
    "bool": {"service": "types-service", "tag": "yes:true"},
    "float": {"service": "types-service", "tag": "float:1.5"},
    "float, whole": {"service": "types-service", "tag": "float.whole:3"},
    "float, third": {"service": "types-service", "tag": "float.third:0.3333333333"},
    "float, large": {"service": "types-service", "tag": "float.large:1e+21"},
    "bytes": {"service": "types-service", "tag": "bytes:0001feff"},
    "list": {"service": "types-service", "tags": json.dumps({"list": '["a",1,true,1.5,null]'})},
    "map": {"service": "types-service", "tags": json.dumps({"map": r'{"a":{"deep":["\u003cx\u003e"]},"b":2}'})},
    "unicode": {"service": "types-service", "tags": json.dumps({"ключ": "unicode key"})},
    "long value": {"service": "long-service", "tags": json.dumps({"long": "x" * 20_000})},
    "empty key": {"service": "types-service", "tags": json.dumps({"": "empty key"})},
    "min duration": {"service": "order-service", "minDuration": "100ms"},
    "min duration that none has": {"service": "order-service", "minDuration": "1m2.5s"},
    "max duration": {"service": "order-service", "maxDuration": "10s"},
    "both durations": {"service": "order-service", "minDuration": "240ms", "maxDuration": "260ms"},
    "both durations, none between": {"service": "types-service", "minDuration": "1us", "maxDuration": "5us"},
    "duration and operation": {"service": "order-service", "operation": "SELECT orders", "minDuration": "200ms"},
    "time": {"service": "order-service", "start": NOW_US - 600_000_000, "end": NOW_US + DAY_US},
    "time of none": {"service": "order-service", "start": 1, "end": 2},
    "an hour ago": {"service": "order-service", "start": NOW_US - 3700 * 10**6, "end": NOW_US - 3500 * 10**6},
    "lookback, as the UI sends it": {"service": "old-service", "lookback": "1h", "limit": 20},
    "no tags": {"service": "old-service", "tags": "{}"},
    "tags of null": {"service": "old-service", "tags": "null"},
    "raw": {"service": "old-service", "raw": "false"},
    "Grafana's form": {
        "service": "order-service",
        "operation": "POST /orders/",
        "tags": '{"shop.order.id":"7"}',
        "minDuration": "1ms",
        "maxDuration": "10s",
        "limit": 20,
        "start": NOW_US - DAY_US,
        "end": NOW_US + DAY_US,
        "lookback": "custom",
    },
}


@pytest.mark.parametrize("params", SEARCHES.values(), ids=SEARCHES)
def test_a_search_finds_the_same(agreed, params):
    assert agreed("/api/traces", **params)[0] == 200


def test_the_searches_find_something(both):
    """A comparison of two empty answers shows little: most of the searches above are meant to find something."""
    found = [name for name, params in SEARCHES.items() if both("/api/traces", **params)[0][2]["data"]]
    empty = set(SEARCHES) - set(found)
    assert all(
        any(word in name for word in ("not", "none", "absent", "another")) for name in empty - {"tag with a colon"}
    ), empty


def test_a_limit_keeps_the_newest(agreed, sent):
    _, _, body = agreed("/api/traces", service="nginx", limit=1)
    assert [trace["traceID"] for trace in body["data"]] == [sent["order"].hex]


def test_traces_are_given_by_several_ids(agreed, sent):
    _, _, body = agreed("/api/traces", traceID=[sent["order"].hex, sent["failed"].hex, "1" * 32])
    assert len(body["data"]) == 2
    assert body["errors"] == [{"msg": "trace not found", "traceID": "1" * 32}]


@pytest.mark.parametrize(
    "path",
    [
        "/api/services",
        "/api/services/order-service/operations",
        "/api/services/odd%2Fservice%20name%3F%26%23%25%2B%C3%A9/operations",
        "/api/services/none/operations",
        "/api/dependencies",
        "/api/dependencies?service=nginx",
        "/api/dependencies?service=none",
        "/api/dependencies?endTs=1000&lookback=1000",
        "/api/services?prettyPrint=true",
    ],
)
def test_a_list_is_the_same(agreed, path):
    assert agreed(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/traces",
        "/api/traces?limit=5",
        "/api/operations",
        "/api/traces/xyz",
        f"/api/traces/{'1' * 33}",
        f"/api/traces/{'1' * 32}",
        "/api/traces/1",
        "/api/traces?traceID=xyz",
        "/api/traces?service=a&limit=x",
        "/api/traces?service=a&limit=99999999999",
        "/api/traces?service=a&start=x",
        "/api/traces?service=a&end=1.5",
        "/api/traces?service=a&minDuration=5",
        "/api/traces?service=a&minDuration=fast",
        "/api/traces?service=a&maxDuration=5%20ms",
        "/api/traces?service=a&minDuration=5ms&maxDuration=1ms",
        "/api/traces?service=a&tag=foo",
        "/api/traces?service=a&tags=foo",
        "/api/traces?service=a&tags=[]",
        '/api/traces?service=a&tags={"n":1}',
        "/api/traces?service=a&raw=x",
        "/api/dependencies?endTs=x",
        "/api/dependencies?lookback=1h",
    ],
)
def test_a_mistake_is_answered_alike(both, path):
    """Status, type and shape are the same; the words are only where they are Jaeger's own."""
    ours, real = both(path)
    assert real[0] >= 400
    assert ours[:2] == real[:2]
    assert shape(ours[2]) == shape(real[2])
    if "parsing" not in (said := message(real)) and "JSON" not in said and "duration" not in said:
        assert message(ours) == said


def shape(body):
    return {**body, "errors": [{**error, "msg": type(error["msg"])} for error in body["errors"]]}


def message(answer):
    return answer[2]["errors"][0]["msg"]


# What the two answer differently, each with a status or an answer of both: (embedded, real).
DIFFERENCES = {
    "operations have their kinds": (
        "/api/operations?service=nginx",
        lambda body: body["data"],
        [{"name": "POST /orders/", "spanKind": "server"}],
        [{"name": "POST /orders/", "spanKind": ""}],
    ),
    "operations can be asked for by kind": (
        "/api/operations?service=nginx&spanKind=client",
        lambda body: len(body["data"]),
        0,
        1,
    ),
    "a limit of 0 is refused, as newer Jaeger does": (
        "/api/traces?service=none&limit=0",
        lambda body: bool(body["errors"]),
        True,
        False,
    ),
    "a start after the end is the client's mistake, as in newer Jaeger": (
        "/api/traces?service=none&start=2&end=1",
        lambda body: body["errors"][0]["code"],
        400,
        500,
    ),
    "there are no metrics of spans": (
        "/api/metrics/calls?service=a",
        lambda body: body["errors"][0]["code"],
        501,
        500,  # it asks Prometheus, which is not there in this test
    ),
    "the limit is bounded": (
        "/api/traces?service=none&limit=1501",
        lambda body: bool(body["errors"]),
        True,
        False,
    ),
}


@pytest.mark.parametrize(("path", "look", "here", "there"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_known_difference_is_still_one(both, path, look, here, there):
    ours, real = both(path)
    assert (look(ours[2]), look(real[2])) == (here, there)


def test_a_duration_is_looked_for_in_the_service_asked_about(both):
    """Jaeger on Badger looks at the spans of all services of a trace; the embedded backend at those of this one."""
    ours, real = both("/api/traces", service="product-service", minDuration="30ms")
    assert (len(ours[2]["data"]), len(real[2]["data"])) == (0, 2)


def test_an_id_of_zeros_is_refused_here_and_kept_by_jaeger(embedded, real_jaeger):
    trace = new_trace("zero", id=bytes(16))
    trace.add("zero-service", "zero")
    answers = send(embedded, real_jaeger, trace.requests()[0])
    assert statuses(answers) == [200, 200]
    assert b"bad_id" in answers[0].content
    assert b"bad_id" not in answers[1].content


def test_an_id_of_a_wrong_length_costs_here_one_span_and_there_the_request(embedded, real_jaeger):
    trace = new_trace("short", id=b"short")
    trace.add("short-service", "short")
    answers = send(embedded, real_jaeger, trace.requests()[0])
    assert statuses(answers) == [200, 400]
    assert b"bad_id" in answers[0].content


def test_an_unknown_path_is_an_error_here_and_the_ui_there(embedded, real_jaeger):
    answers = [api.get("/api/no-such-path") for api in (embedded.jaeger, real_jaeger.api)]
    assert statuses(answers) == [404, 200]
    assert answers[0].json()["errors"][0]["code"] == 404
    assert "<html" in answers[1].text


def test_a_huge_trace_is_cut_here_and_not_there(embedded, real_jaeger):
    trace = new_trace("huge")
    for _ in range(MAX_SPANS + 1):
        trace.add("huge-service", "many")
    assert statuses(send(embedded, real_jaeger, trace.requests()[0])) == [200, 200]
    eventually(lambda: len(spans_of(embedded.jaeger, trace)) == MAX_SPANS, 20, pause=0.5)
    if not real_jaeger.is_recorded:  # megabytes
        eventually(lambda: len(spans_of(real_jaeger.api, trace)) == MAX_SPANS + 1, 20, pause=0.5)
    (ours,) = embedded.jaeger.get(f"/api/traces/{trace.hex}").json()["data"]
    assert "cut" in ours["warnings"][0]


def test_dependencies_are_of_all_traces_here_and_of_the_newest_hundred_there(embedded, real_jaeger):
    yesterday = START - 30 * 3600 * 10**9
    traces = [new_trace(f"caller {number}", start=yesterday + number) for number in range(120)]
    spans = []
    for trace in traces:
        root = trace.add("caller-service", "call", "client")
        trace.add("called-service", "be called", "server", parent=root)
        spans += trace.spans
    for service in ("caller-service", "called-service"):
        request = payloads.request([span for span in spans if span[0] == service], service)
        assert statuses(send(embedded, real_jaeger, request)) == [200, 200]
    path = f"/api/dependencies?endTs={yesterday // payloads.MS + 1000}&lookback=2000"
    calls = {"parent": "caller-service", "child": "called-service"}
    eventually(lambda: embedded.jaeger.get(path).json()["data"] == [{**calls, "callCount": 120}])
    eventually(lambda: real_jaeger.api.get(path).json()["data"] == [{**calls, "callCount": 100}])


def test_a_value_that_is_no_number_is_null_here_and_breaks_the_real_answer(embedded, real_jaeger):
    trace = new_trace("nan")
    trace.add("nan-service", "nan", tags={"nan": float("nan")})
    send(embedded, real_jaeger, trace.requests()[0])
    path = f"/api/traces/{trace.hex}"
    eventually(lambda: embedded.jaeger.get(path).status_code == 200)
    eventually(lambda: real_jaeger.api.get(path).status_code == 500)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 200),
        (b"{}", {"Content-Type": "application/json"}, 200),
        (b"\xff\xff", {}, 400),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        (b"", {"Content-Encoding": "br"}, 400),
        (b"", {"Content-Type": "text/plain"}, 415),
    ],
)
def test_otlp_is_refused_alike(embedded, real_jaeger, body, headers, status):
    headers = {"Content-Type": "application/x-protobuf", **headers}
    answers = [otlp("POST", "/v1/traces", data=body, headers=headers) for otlp in (embedded.otlp, real_jaeger.otlp)]
    assert statuses(answers) == [status, status]
    if status == 400:
        assert answers[0].headers["Content-Type"] == answers[1].headers["Content-Type"]


def test_otlp_is_posted(embedded, real_jaeger):
    assert statuses(otlp.get("/v1/traces") for otlp in (embedded.otlp, real_jaeger.otlp)) == [405, 405]


def test_json_is_taken_as_protobuf_is(embedded, real_jaeger):
    ids = random.Random("json")
    trace_id, span_id = ids.randbytes(16).hex(), ids.randbytes(8).hex()
    span = {
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": "",
        "name": "by JSON",
        "kind": 2,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 10**6),
        "attributes": [{"key": "number", "value": {"intValue": "5"}}],
        "links": [{"traceId": ids.randbytes(16).hex(), "spanId": ids.randbytes(8).hex()}],
        "somethingNew": 1,
    }
    name = {"key": "service.name", "value": {"stringValue": "json-service"}}
    body = {"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": [span]}]}]}
    for otlp in (embedded.otlp, real_jaeger.otlp):
        assert otlp("POST", "/v1/traces", json=body).json() == {"partialSuccess": {}}
    answers = []
    for api in (embedded.jaeger, real_jaeger.api):
        eventually(lambda api=api: api.get(f"/api/traces/{trace_id}").status_code == 200)
        answers.append(comparable(api.get(f"/api/traces/{trace_id}")))
    assert answers[0] == answers[1]
