"""OTLP/HTTP: what is taken, what is refused and how, and that nobody who sends ever waits for the disk."""

import gzip
import os
import threading
import time
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from observability.embedded.app import Backend
from observability.embedded.metrics import REQUEST_REASONS, SIGNALS, SPAN_REASONS
from observability.embedded.settings import BackendSettings
from tests.conformance.payloads import Trace, log_request, order
from tests.fixtures.services import eventually

PROTOBUF = {"Content-Type": "application/x-protobuf"}
GZIP = {**PROTOBUF, "Content-Encoding": "gzip"}
MEGABYTE = 1024 * 1024


def post(embedded, body, headers=PROTOBUF, path="/v1/traces"):
    return embedded.otlp("POST", path, data=body, headers=headers)


def is_there(embedded, trace):
    return embedded.jaeger.get(f"/api/traces/{trace.hex}").status_code == 200


@pytest.mark.parametrize(("pack", "headers"), [(bytes, PROTOBUF), (gzip.compress, GZIP)])
def test_a_trace_is_searchable_within_a_second(embedded, pack, headers):
    trace = order()
    for request in trace.requests():
        answer = post(embedded, pack(request.SerializeToString()), headers)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/x-protobuf"
        assert not ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
    eventually(lambda: is_there(embedded, trace), seconds=1)
    eventually(lambda: len(embedded.jaeger.get(f"/api/traces/{trace.hex}").json()["data"][0]["spans"]) == 12, seconds=1)


def test_log_records_are_searchable_within_a_second(embedded):
    now, trace_id = time.time_ns(), os.urandom(16)
    line = '{"event":"order.created","order_id":7}'
    message = log_request("order-service", [(now, "info", line, trace_id, os.urandom(8))])
    answer = embedded.otlp.send("logs", message)
    assert answer.status_code == 200
    ExportLogsServiceResponse.FromString(answer.content)
    query = f'{{service_name="order-service"}} | trace_id="{trace_id.hex()}"'

    def found():
        body = embedded.loki.get("/loki/api/v1/query_range", params={"query": query}).json()
        return [value[1] for stream in body["data"]["result"] for value in stream["values"]]

    assert eventually(found, seconds=1) == [line]


def damaged(damage):
    """A request with a span that cannot be kept between two that can."""
    trace = Trace()
    for name in ("before", "broken", "after"):
        trace.add("partly-service", name)
    damage(trace.spans[1][2])
    return trace


def set_field(name, value):
    return lambda span: setattr(span, name, value)


BROKEN = {
    "short trace id": set_field("trace_id", b"abc"),
    "no trace id": set_field("trace_id", b""),
    "trace id of zeros": set_field("trace_id", bytes(16)),
    "long span id": set_field("span_id", b"123456789"),
    "span id of zeros": set_field("span_id", bytes(8)),
    "short parent": set_field("parent_span_id", b"1"),
    "no time": set_field("start_time_unix_nano", 0),
    "a year ago": set_field("start_time_unix_nano", time.time_ns() - 365 * 24 * 3600 * 10**9),
    "in a year": set_field("start_time_unix_nano", time.time_ns() + 365 * 24 * 3600 * 10**9),
    "after the end of time": set_field("start_time_unix_nano", 2**64 - 1),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_span_that_cannot_be_kept_is_rejected_and_its_neighbours_are_kept(embedded, damage):
    trace = damaged(damage)
    rejected = [embedded.otlp.metric("embedded_spans_rejected_total", reason=reason) for reason in SPAN_REASONS]
    answer = embedded.otlp.send("traces", trace.requests()[0])
    assert answer.status_code == 200
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 1
    assert partial.error_message in {"bad_id: 1", "bad_time: 1"}
    now = [embedded.otlp.metric("embedded_spans_rejected_total", reason=reason) for reason in SPAN_REASONS]
    assert sum(now) == sum(rejected) + 1
    spans = eventually(lambda: embedded.jaeger.get(f"/api/traces/{trace.hex}").json()["data"])[0]["spans"]
    assert sorted(span["operationName"] for span in spans) == ["after", "before"]


def test_a_parent_of_zeros_is_none(embedded):
    trace = damaged(set_field("parent_span_id", bytes(8)))
    embedded.otlp.send("traces", trace.requests()[0])
    spans = eventually(lambda: embedded.jaeger.get(f"/api/traces/{trace.hex}").json()["data"])[0]["spans"]
    assert [span["references"] for span in spans] == [[], [], []]


def test_what_is_sent_twice_is_there_once(embedded):
    trace = order()
    request = trace.requests()[0]
    before = embedded.otlp.metric("embedded_spans_duplicate_total")
    for _ in range(2):
        assert embedded.otlp.send("traces", request).status_code == 200
    eventually(lambda: embedded.otlp.metric("embedded_spans_duplicate_total") == before + 1)
    assert len(embedded.jaeger.get(f"/api/traces/{trace.hex}").json()["data"][0]["spans"]) == 1


REFUSED = {
    "no protobuf": (b"\xff\xff\xff", PROTOBUF, 400, "malformed"),
    "no gzip": (b"no gzip", GZIP, 400, "malformed"),
    "half a gzip": (gzip.compress(os.urandom(1000))[:-20], GZIP, 400, "malformed"),
    "something after the gzip": (gzip.compress(b"") + b"more", GZIP, 400, "malformed"),
    "another encoding": (b"", {**PROTOBUF, "Content-Encoding": "br"}, 400, "encoding"),
    "another type": (b"", {"Content-Type": "text/plain"}, 415, "media_type"),
    "no type": (b"", {}, 415, "media_type"),
    "too much": (bytes(9 * MEGABYTE), PROTOBUF, 413, "too_large"),
    "too much when unpacked": (gzip.compress(bytes(20 * MEGABYTE), 1), GZIP, 413, "too_large"),
}


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(("body", "headers", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_right_is_refused_and_counted(embedded, path, body, headers, status, reason):
    labels = {"signal": path.removeprefix("/v1/"), "reason": reason}
    before = embedded.otlp.metric("embedded_refused_total", **labels)
    answer = post(embedded, body, headers, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    assert Status.FromString(answer.content).message
    assert embedded.otlp.metric("embedded_refused_total", **labels) == before + 1


MISTAKES = ["{", "[]", '"text"', "7", '{"resourceSpans": 7}', '{"resourceSpans": [{"scopeSpans": [{"spans": [7]}]}]}']
MISTAKES += ['{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "no hex"}]}]}]}', "[" * 100_000]


@pytest.mark.parametrize("body", MISTAKES, ids=range(len(MISTAKES)))
def test_broken_json_is_refused_in_json(embedded, body):
    answer = post(embedded, body, {"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"code": 3, "message": "the body is no valid export request"}


def test_a_bomb_takes_no_memory(embedded):
    def resident():
        lines = Path(f"/proc/{embedded.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    bomb = gzip.compress(bytes(200 * MEGABYTE), 1)
    before = resident()
    for _ in range(3):
        assert post(embedded, bomb, GZIP).status_code == 413
    assert resident() - before < 60


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/traces", 405), ("PUT", "/v1/logs", 405)])
def test_it_is_posted(embedded, method, path, status):
    answer = embedded.otlp(method, path)
    assert answer.status_code == status
    assert "POST" in answer.headers["Allow"]


def test_metrics_of_otlp_are_not_there(embedded):
    assert post(embedded, b"", path="/v1/metrics").status_code == 404


def test_every_counter_is_there_from_the_start(start_embedded):
    text = start_embedded().otlp.get("/metrics").text
    for reason in SPAN_REASONS:
        assert f'embedded_spans_rejected_total{{reason="{reason}"}} 0.0' in text
    for signal in SIGNALS:
        for reason in REQUEST_REASONS:
            assert f'embedded_refused_total{{reason="{reason}",signal="{signal}"}} 0.0' in text
    for name in (
        "embedded_spans_received_total",
        "embedded_spans_stored_total",
        "embedded_spans_duplicate_total",
        "embedded_log_records_received_total",
        "embedded_log_lines_read_total",
        "embedded_log_lines_cut_total",
        "embedded_log_lines_lost_total",
        "embedded_log_lines_not_json_total",
        "embedded_log_files",
        "embedded_database_deleted_total",
        "embedded_database_failed_writes_total",
    ):
        assert f"\n{name} 0.0" in text, name
    gauges = ("queue_length", "queue_bytes", "queue_capacity_bytes", "database_bytes", "database_used_bytes")
    for name in ("embedded_database_commits_total", *(f"embedded_{gauge}" for gauge in gauges)):
        assert f"\n{name} " in text, name
    assert "\nprocess_resident_memory_bytes " in text


@pytest.fixture
def stuck(tmp_path):
    """A backend whose writer is stuck: its client, and what lets it go on."""
    backend = Backend(BackendSettings(embedded_database=tmp_path / "embedded.sqlite", queue_mb=1))
    backend.database.start()
    running, go = threading.Event(), threading.Event()
    backend.database.write(lambda _: (running.set(), go.wait(20)))
    assert running.wait(5)
    yield backend, backend.apps()["otlp_port"].test_client(), go.set
    go.set()
    backend.database.stop()


def test_a_full_queue_says_come_again_and_takes_more_afterwards(stuck):
    backend, client, go_on = stuck
    trace = Trace()
    for _ in range(2000):
        trace.add("s", "n", tags={"text": "x" * 200})
    body = trace.requests()[0].SerializeToString()
    answers = []
    while not answers or answers[-1].status_code == 200:
        began = time.monotonic()
        answers.append(client.post("/v1/traces", data=body, headers=PROTOBUF))
        assert time.monotonic() - began < 2
    assert len(answers) > 1
    assert answers[-1].status_code == 503
    assert answers[-1].headers["Retry-After"] == "1"
    assert Status.FromString(answers[-1].data).code == 14
    assert backend.database.figures.queued_bytes <= MEGABYTE
    go_on()
    assert backend.database.flush()
    assert client.post("/v1/traces", data=body, headers=PROTOBUF).status_code == 200


def test_an_empty_request_is_fine(embedded):
    assert post(embedded, b"").status_code == 200
    assert post(embedded, ExportTraceServiceRequest().SerializeToString()).status_code == 200
