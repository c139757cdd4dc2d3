"""OTLP that is not clean: one bad record costs neither the others of its request nor a query later.

The right values are what Jaeger 2.13 answers; where it refuses a whole request, here one record is left out.
"""

import gzip
import json
import os
import time

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability.receiving.messages import _as_varint, read_protobuf
from tests.conformance.payloads import Trace, event, log_request
from tests.embedded.hostile import attribute, body, logs, record, span, traces
from tests.fixtures.services import eventually

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
HALF = "\\ud83d"  # of a surrogate pair


def post(embedded, data, headers=JSON, path="/v1/traces"):
    return embedded.otlp("POST", path, data=data, headers=headers)


def the_span(embedded, trace_id):
    """The one span of a trace, once it is there."""

    def found():
        answer = embedded.jaeger.get(f"/api/traces/{trace_id}")
        return answer.json()["data"][0] if answer.status_code == 200 else None

    trace = eventually(found)
    (only,) = trace["spans"]
    return {**only, "process": trace["processes"][only["processID"]]}


def tag_of(found, key):
    (value,) = [tag["value"] for tag in found["tags"] if tag["key"] == key]
    return value


def streams(embedded, query):
    answer = embedded.loki.get("/loki/api/v1/query_range", params={"query": query})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["result"]


def lines(embedded, query):
    return sorted(value[1] for stream in streams(embedded, query) for value in stream["values"])


# --- text that is no clean Unicode ---


def send_pair(embedded, odd, **parts):
    """Send a healthy span and an odd one; both are kept, and the odd one is the answer."""
    healthy = span()
    answer = post(embedded, body(traces(healthy, odd), **parts))
    assert (answer.status_code, answer.json()) == (200, {"partialSuccess": {}})
    the_span(embedded, healthy["traceId"])
    return the_span(embedded, odd["traceId"])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (f"abcd{HALF}", "abcd\ufffd"),
        ("\\ude00x", "\ufffdx"),
        (f"{HALF}{HALF}\\ude00", "\ufffd😀"),
        ("a\\u0000b", "a\0b"),
    ],
)
def test_half_a_surrogate_pair_in_json_costs_one_character(embedded, sent, kept):
    named = send_pair(embedded, span("CUT"), CUT=sent)
    assert named["operationName"] == kept
    valued = send_pair(embedded, span(attributes=[attribute("text", stringValue="CUT")]), CUT=sent)
    assert tag_of(valued, "text") == kept
    keyed = send_pair(embedded, span(attributes=[attribute("CUT", stringValue="v")]), CUT=sent)
    assert tag_of(keyed, kept) == "v"


def test_half_a_surrogate_pair_in_a_service_and_its_resource_is_kept_and_found(embedded):
    name = os.urandom(4).hex()
    odd = span()
    request = traces(odd, service=f"{name}CUT", resource=[attribute("host", stringValue="CUT")])
    assert post(embedded, body(request, CUT=HALF)).status_code == 200
    process = the_span(embedded, odd["traceId"])["process"]
    assert process == {"serviceName": f"{name}\ufffd", "tags": [{"key": "host", "type": "string", "value": "\ufffd"}]}
    found = embedded.jaeger.get("/api/traces", params={"service": f"{name}\ufffd", "tags": f'{{"host":"{HALF}"}}'})
    assert [trace["traceID"] for trace in found.json()["data"]] == [odd["traceId"]]


def test_bytes_that_are_no_utf_8_are_kept_as_text_from_json(embedded):
    odd = span("CUT")
    data = body(traces(odd)).replace(b"CUT", b"a\xff\xfeb")
    assert post(embedded, data).status_code == 200
    assert the_span(embedded, odd["traceId"])["operationName"] == "a\ufffd\ufffdb"


@pytest.mark.parametrize("where", ["NAME", "KEY", "VALUE", "ITEM", "EVENT", "FIELD", "MESSAGE", "STATE", "SERVICE"])
def test_bytes_that_are_no_utf_8_cost_neither_the_span_nor_its_neighbours_in_protobuf(embedded, where):
    trace, healthy = Trace(), Trace()
    trace.add(
        "SERVICE",
        "NAME",
        tags={"KEY": "VALUE", "list": [{"in": ["ITEM", 1.5]}], "number": 2**60},
        events=[event("EVENT", trace.start, FIELD=b"\xff")],
        status={"code": 2, "message": "MESSAGE"},
        trace_state="STATE",
    )
    healthy.add("SERVICE", "healthy")
    message = trace.requests()[0]
    message.MergeFrom(healthy.requests()[0])
    data = message.SerializeToString().replace(where.encode(), b"\xff" * len(where))
    answer = post(embedded, gzip.compress(data), {**PROTOBUF, "Content-Encoding": "gzip"})
    assert answer.status_code == 200
    assert not ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
    assert the_span(embedded, healthy.hex)["operationName"] == "healthy"
    found = the_span(embedded, trace.hex)
    assert "\ufffd" * len(where) in json.dumps(found, ensure_ascii=False)
    assert tag_of(found, "number") == str(2**60)


def test_half_a_surrogate_pair_in_a_log_costs_one_character(embedded):
    service = f"logs-{os.urandom(4).hex()}"
    odd = record("bodyCUT", attributes=[attribute("text", stringValue="xCUT")])
    assert post(embedded, body(logs(record(), odd, service=service), CUT=HALF), path="/v1/logs").status_code == 200
    selector = f'{{service_name="{service}"}}'
    assert eventually(lambda: lines(embedded, selector)) == ["body\ufffd", "healthy"]
    assert lines(embedded, f'{selector} | text="x "') == ["body\ufffd"]  # Loki allows no U+FFFD in a label


def test_bytes_that_are_no_utf_8_in_a_log_cost_no_line(embedded):
    service = f"logs-{os.urandom(4).hex()}"
    rows = [(time.time_ns(), "info", line, bytes(16), bytes(8)) for line in ("healthy", "BROKEN")]
    data = log_request(service, rows).SerializeToString().replace(b"BROKEN", b"b\xff\xfe\xfd\xfcd")
    assert post(embedded, data, PROTOBUF, "/v1/logs").status_code == 200
    found = eventually(lambda: lines(embedded, f'{{service_name="{service}"}}'))
    assert found == ["b\ufffd\ufffd\ufffd\ufffdd", "healthy"]


# --- records that make no sense ---

NUMBERS = {"intValue": ["99999999999999999999", 10**30, "x", 1.5], "doubleValue": ["x"], "boolValue": ["true"]}
SENSELESS = {
    **{
        f"{kind} {value}": {"attributes": [attribute("k", **{kind: value})]}
        for kind in NUMBERS
        for value in NUMBERS[kind]
    },
    "a text that is a number": {"attributes": [attribute("k", stringValue=5)]},
    "a name that is a number": {"name": 7},
    "attributes that are none": {"attributes": "none"},
    "an attribute that is none": {"attributes": [7]},
    "an id that is no hex": {"spanId": "zzzzzzzzzzzzzzzz"},
    "half a byte of an id": {"spanId": "abc"},
    "an id with spaces": {"spanId": "ab cdef0123456789"},
    "a negative time": {"endTimeUnixNano": "-5"},
    "a time that is none": {"startTimeUnixNano": "soon"},
    "a time beyond all": {"endTimeUnixNano": str(2**64)},
}


@pytest.mark.parametrize("damage", SENSELESS.values(), ids=SENSELESS)
def test_a_span_that_makes_no_sense_is_left_out_and_said_to_be(embedded, damage):
    healthy, before = span(), embedded.otlp.metric("embedded_spans_rejected_total", reason="malformed")
    answer = post(embedded, body(traces(span(), span(**damage), healthy)))
    assert answer.status_code == 200
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "malformed: 1"}}
    assert embedded.otlp.metric("embedded_spans_rejected_total", reason="malformed") == before + 1
    the_span(embedded, healthy["traceId"])


def test_numbers_out_of_range_cost_one_span(embedded):
    healthy = span()
    data = body(traces(healthy, span(attributes=[attribute("k", doubleValue="N")])), **{'"N"': "1e999"})
    assert post(embedded, data).json()["partialSuccess"]["rejectedSpans"] == "1"
    the_span(embedded, healthy["traceId"])


def test_values_nested_too_deeply_cost_one_span(embedded):
    deep = {"stringValue": "x"}
    for _ in range(150):
        deep = {"arrayValue": {"values": [deep]}}
    healthy = span()
    answer = post(embedded, body(traces(healthy, span(attributes=[{"key": "k", "value": deep}]))))
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    the_span(embedded, healthy["traceId"])


def test_a_resource_that_makes_no_sense_costs_its_own_spans(embedded):
    healthy, lost = span(), [span(), span()]
    request = traces(healthy)
    request["resourceSpans"] += traces(*lost, resource=[attribute("k", intValue="x")])["resourceSpans"]
    answer = post(embedded, body(request))
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "malformed: 2"}}
    the_span(embedded, healthy["traceId"])


def test_a_log_record_that_makes_no_sense_is_left_out_and_said_to_be(embedded):
    service, before = (
        f"logs-{os.urandom(4).hex()}",
        embedded.otlp.metric("embedded_log_records_rejected_total", reason="malformed"),
    )
    answer = post(embedded, body(logs(record(), record(severityNumber={}), service=service)), path="/v1/logs")
    assert answer.json() == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "malformed: 1"}}
    assert embedded.otlp.metric("embedded_log_records_rejected_total", reason="malformed") == before + 1
    assert eventually(lambda: lines(embedded, f'{{service_name="{service}"}}')) == ["healthy"]


def test_a_request_of_nothing_but_senseless_records_is_refused(embedded):
    answer = post(embedded, body(traces(span(name=7), span(name=8))))
    assert answer.status_code == 400
    assert answer.json() == {"code": 3, "message": "the body is no valid export request"}


ODD_BUT_FINE = {
    "a number as text": ({"attributes": [attribute("k", intValue="5")]}, 5),
    "a number": ({"attributes": [attribute("k", intValue=5)]}, 5),
    "a double as text": ({"attributes": [attribute("k", doubleValue="1.5")]}, 1.5),
    "bytes": ({"attributes": [attribute("k", bytesValue="AAH+/w==")]}, "AAH+/w=="),
    "two values": ({"attributes": [attribute("k", stringValue="a", intValue=5)]}, 5),
    "no value": ({"attributes": [{"key": "k"}]}, ""),
    "a null": ({"attributes": [{"key": "k", "value": None}, None]}, ""),
    "a status by its name": ({"status": {"code": "STATUS_CODE_ERROR"}, "attributes": [attribute("k", intValue=1)]}, 1),
    "a kind by its name": ({"kind": "SPAN_KIND_SERVER", "attributes": [attribute("k", intValue=1)]}, 1),
    "a kind to come": ({"kind": 99, "attributes": [attribute("k", intValue=1)]}, 1),
    "a field to come": ({"later": [{"x": {"y": None}}], "attributes": [attribute("k", intValue=1)]}, 1),
    "an id in capitals": ({"spanId": "ABCDEF0123456789", "attributes": [attribute("k", intValue=1)]}, 1),
    "an address": ({"attributes": [attribute("ip", intValue="2130706433"), attribute("k", intValue=1)]}, 1),
}


@pytest.mark.parametrize(("fields", "value"), ODD_BUT_FINE.values(), ids=ODD_BUT_FINE)
def test_what_is_odd_but_means_something_is_kept(embedded, fields, value):
    found = send_pair(embedded, span("odd", **fields))
    assert tag_of(found, "k") == value
    assert [tag["value"] for tag in found["tags"] if tag["key"] == "ip"] in ([], ["127.0.0.1"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_double_that_is_no_number_breaks_no_answer(embedded, number):
    service = f"nan-{os.urandom(4).hex()}"
    odd = span(attributes=[attribute("k", doubleValue=number)])
    assert post(embedded, body(traces(odd, span(), service=service))).status_code == 200
    assert tag_of(the_span(embedded, odd["traceId"]), "k") is None
    text = {"NaN": "NaN", "Infinity": "+Inf", "-Infinity": "-Inf"}[number]
    found = embedded.jaeger.get("/api/traces", params={"service": service, "tags": json.dumps({"k": text})}).json()
    assert [trace["traceID"] for trace in found["data"]] == [odd["traceId"]]


def test_an_end_beyond_all_is_a_negative_duration_as_in_jaeger(embedded):
    found = send_pair(embedded, span("endless", endTimeUnixNano=str(2**64 - 1)))
    assert found["duration"] == 0
    assert "Original end timestamp: 1969-12-31 23:59:59.999999999 +0000 UTC" in found["warnings"][0]


# --- doubles as text ---

DOUBLES = {1.0: "1", 2.5: "2.5", 1e20: "100000000000000000000", 1e21: "1e+21", 1e-6: "0.000001", 1e-7: "1e-7"}
DOUBLES |= {
    0.1 + 0.2: "0.30000000000000004",
    1e300: "1e+300",
    5e-324: "5e-324",
    12345678901234567890.0: "12345678901234567000",
}


def test_doubles_in_a_list_are_written_as_go_does(embedded):
    values = [{"doubleValue": value} for value in [*DOUBLES, -0.0]]
    listed = attribute("list", arrayValue={"values": values})
    mapped = attribute(
        "map", kvlistValue={"values": [attribute("b", doubleValue=2.0), attribute("a", bytesValue="/w==")]}
    )
    broken = attribute("broken", arrayValue={"values": [{"doubleValue": 1}, {"doubleValue": "NaN"}]})
    found = send_pair(embedded, span("doubles", attributes=[listed, mapped, broken]))
    assert tag_of(found, "list") == f"[{','.join(DOUBLES.values())},-0]"
    assert tag_of(found, "map") == '{"a":"/w==","b":2}'
    assert tag_of(found, "broken") == ""


def test_doubles_in_a_log_are_written_as_go_does(embedded):
    service = f"logs-{os.urandom(4).hex()}"
    values = {**{text: value for value, text in DOUBLES.items()}, "NaN": "NaN", "-Infinity": "-Infinity"}
    named = [attribute(f"n{number}", doubleValue=value) for number, value in enumerate(values.values())]
    mapped = {"kvlistValue": {"values": [attribute("x", doubleValue=3.0), attribute("<", stringValue="\u2028")]}}
    request = logs(record(attributes=named, body=mapped), record(body={"doubleValue": 1e21}), service=service)
    assert post(embedded, body(request), path="/v1/logs").status_code == 200
    assert eventually(lambda: lines(embedded, f'{{service_name="{service}"}}')) == ["1e+21", '{"<":"\\u2028","x":3}']
    condition = ", ".join(f'n{number}="{text}"' for number, text in enumerate(values))
    assert len(lines(embedded, f'{{service_name="{service}"}} | {condition}')) == 1


# --- names of structured metadata ---

NAMES = {
    "4xx.count": "key_4xx_count",
    "4": "key_4",
    "http.status-code": "http_status_code",
    "a..b": "a_b",
    "a__b": "a_b",
    "_x": "_x",
    "__x": "_x",
    "__x__": "__x__",
    ".a": "_a",
    "a:b c": "a_b_c",
    "größe": "gr_e",
}


def test_an_attributes_name_becomes_one_that_can_be_asked_for(embedded):
    service = f"names-{os.urandom(4).hex()}"
    names = [*NAMES, "", "é", "__"]  # nothing is left of the last three, which Loki refuses
    records = [record(f"line {key}", attributes=[attribute(key, stringValue="v")]) for key in names]
    assert post(embedded, body(logs(*records, service=service)), path="/v1/logs").status_code == 200
    eventually(lambda: len(lines(embedded, f'{{service_name="{service}"}}')) == len(names))
    for key, name in NAMES.items():
        assert f"line {key}" in lines(embedded, f'{{service_name="{service}"}} | {name}="v"')


def the_stream(embedded, service, request):
    assert post(embedded, body(request), path="/v1/logs").status_code == 200
    (stream,) = eventually(lambda: streams(embedded, f'{{service_name="{service}"}}'))
    return stream["stream"]


def test_an_attribute_takes_no_labels_place(embedded):
    service = f"mine-{os.urandom(4).hex()}"
    mine = record(attributes=[attribute("service.name", stringValue="other")])
    stream = the_stream(embedded, service, logs(mine, service=service))
    assert stream == {"service_name": service, "service_name_extracted": "other"}
    assert lines(embedded, f'{{service_name="{service}"}} | service_name_extracted="other"') == ["healthy"]
    assert streams(embedded, f'{{service_name="{service}"}} | service_name="other"') == []


def test_of_attributes_with_one_name_the_scopes_is_kept_then_the_resources(embedded):
    service = f"same-{os.urandom(4).hex()}"
    names = ["a.b", "c", "d"]
    request = logs(
        record(
            attributes=[*(attribute(name, stringValue="record") for name in names), attribute("d", stringValue="last")]
        ),
        service=service,
        resource=[attribute("a_b", stringValue="resource"), attribute("c", stringValue="resource")],
    )
    request["resourceLogs"][0]["scopeLogs"][0]["scope"] = {"attributes": [attribute("c", stringValue="scope")]}
    stream = the_stream(embedded, service, request)
    assert stream == {"service_name": service, "a_b": "resource", "c": "scope", "d": "last"}


def test_an_id_of_zeros_and_a_service_without_a_name_are_none(embedded):
    line = os.urandom(4).hex()
    request = logs(record(line, traceId="0" * 32, spanId="0" * 16), service="")
    assert post(embedded, body(request), path="/v1/logs").status_code == 200
    (stream,) = eventually(lambda: streams(embedded, f'{{service_name="unknown_service"}} |= "{line}"'))
    assert stream["stream"] == {"service_name": "unknown_service"}


# --- errors ---


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "code"),
    [
        ("POST", "/v1/metrics", b"", 404, 12),
        ("POST", "/nowhere", b"", 404, 12),
        ("GET", "/v1/traces", None, 405, 12),
        ("PUT", "/v1/logs", b"", 405, 12),
        ("POST", "/metrics", b"", 405, 12),
        ("POST", "/v1/traces", b"\xff", 400, 3),
        ("POST", "/v1/logs", bytes(9 * 2**20), 413, 8),
        ("POST", "/v1/logs", bytes(17 * 2**20), 413, 8),  # the web server's own limit
    ],
)
@pytest.mark.parametrize(
    "media_type", ["application/x-protobuf", "application/json", "application/json; charset=utf-8"]
)
def test_every_error_is_a_status_in_the_requests_form(embedded, method, path, data, status, code, media_type):
    answer = embedded.otlp(method, path, data=data, headers={"Content-Type": media_type})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == media_type.partition(";")[0]
    if "json" in media_type:
        said = answer.json()
        assert (said["code"], bool(said["message"])) == (code, True)
    else:
        said = Status.FromString(answer.content)
        assert (said.code, bool(said.message)) == (code, True)
    assert ("POST" in answer.headers.get("Allow", "")) is (status == 405 and path != "/metrics")


def test_what_is_no_http_is_refused_with_a_status_too(embedded):
    answer = embedded.otlp("POST", "/v1/traces", data=b"", headers={"X": "x" * 2**19, **JSON})
    assert answer.status_code == 431
    assert Status.FromString(answer.content).code == 3


def test_a_mistake_of_ours_is_a_status(backend, monkeypatch):
    monkeypatch.setattr("observability.embedded.otlp.entries_from_otlp", lambda _: 1 / 0)
    client = backend.apps()["otlp_port"].test_client()
    answer = client.post("/v1/logs", data=body(logs(record())), headers=JSON)
    assert (answer.status_code, answer.json["code"]) == (500, 13)
    assert "division" not in answer.text


def nested(levels):
    value = {"stringValue": "x"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return value


@pytest.mark.parametrize("levels", [48, 60, 200])
def test_a_value_in_json_that_is_nested_too_deeply_costs_its_record_alone(embedded, levels):
    healthy = span()
    answer = post(embedded, body(traces(healthy, span(attributes=[{"key": "deep", "value": nested(levels)}]))))
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "malformed: 1"}}
    the_span(embedded, healthy["traceId"])
    service = f"logs-{os.urandom(4).hex()}"
    answer = post(embedded, body(logs(record(), record(body=nested(levels)), service=service)), path="/v1/logs")
    assert answer.json() == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "malformed: 1"}}
    assert eventually(lambda: lines(embedded, f'{{service_name="{service}"}}')) == ["healthy"]


def part(number, content):
    """A field of protobuf's that has a length."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


@pytest.mark.parametrize("levels", [47, 48, 60, 200])
def test_a_value_in_protobuf_that_is_nested_too_deeply_is_cut_there_and_costs_no_span(levels):
    value = part(1, b"x")
    for _ in range(levels):
        value = part(5, part(1, value))
    deep = part(5, b"deep") + part(9, part(1, b"key") + part(2, value))
    message = ExportTraceServiceRequest()
    read_protobuf(part(1, part(2, part(2, deep) + part(2, part(5, b"healthy")))), message)
    spans = message.resource_spans[0].scope_spans[0].spans
    assert [one.name for one in spans] == ["deep", "healthy"]
    assert spans[0].attributes[0].key == "key"
    assert Span.FromString(spans[0].SerializeToString()) == spans[0]
