"""Random hostile telemetry and lines: never a 5xx, and the healthy neighbour is always kept and found, soon."""

import itertools
import json
import os
import time
from urllib.parse import quote

import hypothesis
import pytest
from hypothesis import strategies as st

from observability.embedded.app import Backend
from observability.embedded.settings import BackendSettings
from tests.conformance.payloads import Trace, event
from tests.embedded.hostile import body, logs, record, span, traces

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
SOON = 5  # seconds for a request; some milliseconds are usual

bounded = hypothesis.settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


class Asked:
    """A backend without its servers; each request is counted, timed, and has to be answered without a 5xx."""

    def __init__(self, folder):
        self.backend = Backend(BackendSettings(embedded_database=folder / "embedded.sqlite"))
        self.backend.database.start()
        self.clients = {name.removesuffix("_port"): app.test_client() for name, app in self.backend.apps().items()}
        self.count = 0
        self.numbers = itertools.count()

    def __call__(self, port, method, path, **how):
        began = time.monotonic()
        answer = self.clients[port].open(path, method=method, **how)
        self.count += 1
        assert answer.status_code < 500, answer.text
        assert time.monotonic() - began < SOON
        return answer

    def send(self, path, data, headers):
        return self("otlp", "POST", path, data=data, headers=headers)

    def settle(self):
        assert self.backend.database.flush()
        assert self.backend.database.figures.failed_writes == 0

    def trace(self, trace_id):
        return self("jaeger", "GET", f"/api/traces/{trace_id}")

    def search(self, **params):
        return self("jaeger", "GET", "/api/traces", query_string=params)

    def query(self, query, **params):
        return self("loki", "GET", "/loki/api/v1/query_range", query_string={"query": query, **params})

    def lines(self, query):
        answer = self.query(query)
        assert answer.status_code == 200, answer.text
        return [value[1] for stream in answer.json["data"]["result"] for value in stream["values"]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    asked = Asked(tmp_path_factory.mktemp("fuzz"))
    yield asked
    asked.backend.database.stop()


STAGES = [
    "json",
    'json o="o"',
    'json a="a.b", x="o.x[1]"',
    "logfmt",
    "logfmt --strict",
    "logfmt --keep-empty a",
    'regexp "(?P<a>.)(?P<b>.*)"',
    'line_format "{{.a}}"',
    "label_format z=a",
    "drop a",
    "keep a",
    "a > 1",
    "a > 1KB",
    "a > 1s",
    'a=~".*"',
    '__error__=""',
]

texts = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=6),
    st.sampled_from(
        ["", "\0", "\ud83d", "\ude00x", "\ufffd", "\u2028", "9" * 30, "__error__", "service.name", "_", "4xx"]
    ),
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from(
        [2**63, -(2**63) - 1, 2**64, 10**40, 1e308, -0.0, "NaN", "Infinity", "1e999", "0x1", "5", "-5", " 5"]
    ),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
values = st.recursive(
    st.one_of(
        st.builds(
            lambda kind, value: {kind: value}, st.sampled_from(["intValue", "doubleValue", "boolValue"]), numbers
        ),
        st.builds(lambda value: {"stringValue": value}, texts),
        st.builds(lambda value: {"bytesValue": value}, st.one_of(texts, st.just("AAH+/w=="))),
        st.dictionaries(st.sampled_from(["stringValue", "intValue", "later"]), junk, max_size=3),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"arrayValue": {"values": items}}, st.lists(inner, max_size=3)),
        st.builds(
            lambda items: {"kvlistValue": {"values": [{"key": key, "value": value} for key, value in items]}},
            st.lists(st.tuples(texts, inner), max_size=3),
        ),
    ),
    max_leaves=6,
)
attributes = st.lists(st.one_of(st.builds(lambda k, v: {"key": k, "value": v}, texts, values), junk), max_size=4)
ids = st.one_of(texts, st.sampled_from(["0" * 16, "0" * 32, "abc", "AB" * 8, "ab" * 16, "zz" * 8, "ab cdef0123456789"]))
times = st.one_of(numbers, st.sampled_from([str(2**64 - 1), str(2**63), "0", 0, str(time.time_ns())]))
odd = {
    "name": st.one_of(texts, junk),
    "kind": st.one_of(st.integers(-1, 7), junk),
    "traceId": ids,
    "spanId": ids,
    "parentSpanId": ids,
    "startTimeUnixNano": times,
    "endTimeUnixNano": times,
    "attributes": st.one_of(attributes, junk),
    "status": st.one_of(st.fixed_dictionaries({"code": numbers, "message": texts}), junk),
    "events": st.one_of(st.lists(st.fixed_dictionaries({"name": texts, "attributes": attributes}), max_size=2), junk),
    "links": st.one_of(st.lists(st.fixed_dictionaries({"traceId": ids, "spanId": ids}), max_size=2), junk),
    "traceState": st.one_of(texts, junk),
    "later": junk,
}
odd_spans = st.fixed_dictionaries({}, optional=odd)
odd_records = st.fixed_dictionaries(
    {},
    optional={
        **{name: odd[name] for name in ("traceId", "spanId", "attributes", "later")},
        "timeUnixNano": times,
        "observedTimeUnixNano": times,
        "severityNumber": numbers,
        "severityText": texts,
        "body": st.one_of(values, junk),
        "flags": numbers,
    },
)


@bounded
@hypothesis.given(fields=odd_spans, resource=attributes, service=texts)
def test_a_hostile_span_in_json_costs_no_other(asked, fields, resource, service):
    healthy, hostile, other = span(), {**span("odd"), **fields}, span()
    request = traces(healthy, hostile, service="healthy")
    request["resourceSpans"] += traces(other, service=service, resource=resource)["resourceSpans"]
    answer = asked.send("/v1/traces", body(request), JSON)
    assert answer.status_code == 200, answer.text
    asked.settle()
    assert asked.trace(healthy["traceId"]).status_code == 200
    assert asked.trace(quote(str(hostile["traceId"]).encode(errors="replace"), safe="")).status_code in {200, 400, 404}
    assert asked("jaeger", "GET", "/api/services").status_code == 200
    wanted = {"service": service.encode(errors="replace").decode(), "tags": json.dumps({"k": service})}
    assert asked.search(**wanted).status_code in {200, 400}
    assert asked.search(service="healthy", limit=20).status_code == 200


@bounded
@hypothesis.given(fields=odd_records, resource=attributes)
def test_a_hostile_log_record_in_json_costs_no_other(asked, fields, resource):
    service = f"logs{next(asked.numbers)}"
    request = logs(record(), {**record("odd"), **fields}, service=service)
    request["resourceLogs"] += logs(record("other"), service=service, resource=resource)["resourceLogs"]
    answer = asked.send("/v1/logs", body(request), JSON)
    assert answer.status_code == 200, answer.text
    asked.settle()
    selector = f'{{service_name="{service}"}}'
    for stage in (
        "",
        "| json",
        "| logfmt",
        '| json x="a.b[0]"',
        "| logfmt --strict --keep-empty",
        "| label_format y=x",
    ):
        assert "healthy" in asked.lines(f"{selector} {stage}")
    assert asked.query(f"sum(count_over_time({selector} | json [1h]))").status_code == 200
    for path in ("labels", "series", "index/volume"):
        assert asked("loki", "GET", f"/loki/api/v1/{path}", query_string={"query": selector}).status_code == 200


@bounded
@hypothesis.given(data=st.data())
def test_damaged_protobuf_costs_no_5xx_and_text_that_is_none_costs_no_span(asked, data):
    trace, healthy = Trace(), Trace()
    tags = {"KEY": "VALUE", "list": [1.5, {"in": "DEEP"}], "bytes": b"\xff"}
    trace.add("SERVICE", "NAME", tags=tags, events=[event("EVENT", 0, FIELD="TEXT")], trace_state="STATE")
    healthy.add("SERVICE", "healthy")
    message = trace.requests()[0]
    message.MergeFrom(healthy.requests()[0])
    packed = message.SerializeToString()
    word = data.draw(st.sampled_from([b"KEY", b"VALUE", b"DEEP", b"SERVICE", b"NAME", b"EVENT", b"TEXT", b"STATE"]))
    torn = data.draw(st.binary(min_size=len(word), max_size=len(word)))
    assert asked.send("/v1/traces", packed.replace(word, torn), PROTOBUF).status_code == 200
    asked.settle()
    assert asked.trace(healthy.hex).status_code == 200
    at, junk_bytes = data.draw(st.integers(0, len(packed))), data.draw(st.binary(max_size=4))
    for damaged in (packed[:at] + junk_bytes + packed[at:], packed[:at], packed[:at] + junk_bytes + packed[at + 4 :]):
        for path in ("/v1/traces", "/v1/logs"):
            assert asked.send(path, damaged, PROTOBUF).status_code in {200, 400}
            assert asked.send(path, damaged, JSON).status_code in {200, 400}
    asked.settle()


json_pieces = st.sampled_from(
    [
        *'"{}[],:\\\t\0- é\ufffd',
        '{"',
        '"a":',
        '"o":{"x":1}',
        "\\u",
        "d83d",
        "\\ud83d",
        "1e999",
        "1.",
        "NaN",
        "null",
        "tru",
    ]
)
logfmt_pieces = st.sampled_from(
    ["a", "=", '"', " ", "b=1", 'c="x y"', "\\", "\\u", "d83d", "\t", "\0", "é", "\ufffd", "d=", "4x", ".", "'"]
)
lines_of = st.one_of(
    st.lists(json_pieces, max_size=12).map("".join),
    st.lists(logfmt_pieces, max_size=12).map("".join),
    junk.map(lambda value: json.dumps(value, default=str)),
    st.text(max_size=30),
)


@bounded
@hypothesis.given(line=lines_of, stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=4))
def test_a_hostile_line_costs_no_query(asked, line, stages):
    service = f"lines{next(asked.numbers)}"
    request = logs(record('{"o":{"x":1},"healthy":1}'), record(line), service=service)
    assert asked.send("/v1/logs", body(request), JSON).status_code == 200
    asked.settle()
    selector = f'{{service_name="{service}"}}'
    assert '{"o":{"x":1},"healthy":1}' in asked.lines(selector)
    for stage in STAGES[:6]:
        assert '{"o":{"x":1},"healthy":1}' in asked.lines(f"{selector} | {stage}")
    chain = f"{selector} | {' | '.join(stages)}"
    assert asked.query(chain).status_code == 200
    for metric in (f"sum by (a) (count_over_time({chain} [1h]))", f"sum_over_time({chain} | unwrap a [1h])"):
        assert asked.query(metric).status_code in {200, 400}


PARAMETERS = ["start", "end", "limit", "minDuration", "maxDuration", "tags", "tag", "operation", "traceID", "raw"]
PARAMETERS += ["service", "lookback", "endTs", "spanKind", "prettyPrint"]
parameters = st.one_of(
    texts.map(lambda text: text.encode(errors="replace").decode()),
    numbers.map(str),
    st.sampled_from(
        ["9" * 400 + "s", "1h", "-1s", "1e400s", '{"a":"b"}', "[" * 3000, '{"a":"\\ud800"}', "{}", "a:b", "1µs"]
    ),
)


@bounded
@hypothesis.given(
    params=st.dictionaries(
        st.sampled_from(PARAMETERS),
        parameters,
        max_size=5,
    ),
    path=st.sampled_from(["/api/traces", "/api/traces", "/api/dependencies", "/api/operations", "/api/services"]),
)
def test_no_parameter_makes_jaegers_api_fail(asked, params, path):
    answer = asked("jaeger", "GET", path, query_string={"service": "healthy", **params})
    assert answer.status_code in {200, 400}
    assert answer.status_code == 200 or json.loads(answer.text)["errors"][0]["code"] == 400


@bounded
@hypothesis.given(
    labels=st.dictionaries(st.one_of(st.sampled_from("abc"), texts), junk, max_size=4),
    line=st.one_of(st.lists(st.one_of(times, texts, junk), max_size=4), junk),
    metadata=st.one_of(st.dictionaries(texts, texts, max_size=3), junk),
)
def test_a_hostile_push_is_refused_whole_or_costs_no_other_line(asked, labels, line, metadata):
    now = str(time.time_ns())
    for values in ([line], [[now, "odd", metadata]]):
        service = f"push{next(asked.numbers)}"
        streams = [{"stream": {"service_name": service}, "values": [[now, "healthy"]]}]
        request = {"streams": [*streams, {"stream": labels, "values": values}]}
        refused = asked.backend.metrics.refused.labels("logs", "malformed")._value.get()
        answer = asked("loki", "POST", "/loki/api/v1/push", data=json.dumps(request), headers=JSON)
        assert answer.status_code in {204, 400}
        asked.settle()
        malformed = asked.backend.metrics.refused.labels("logs", "malformed")._value.get()
        assert ("healthy" in asked.lines(f'{{service_name="{service}"}}')) is (malformed == refused)
