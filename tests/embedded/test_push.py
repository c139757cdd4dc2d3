"""What Loki takes on its port: JSON pushes, and OTLP under /otlp."""

import gzip
import json
import re
import threading
import time
import tracemalloc

import pytest
from google.rpc.status_pb2 import Status

from observability.embedded.app import Backend
from observability.embedded.metrics import REQUEST_REASONS
from observability.embedded.settings import BackendSettings
from tests.conformance.payloads import log_request
from tests.fixtures.services import eventually

PATH = "/loki/api/v1/push"
JSON = {"Content-Type": "application/json"}
MISSING = "error at least one valid stream is required for ingestion\n"
SECOND = 10**9


def push(embedded, body, **headers):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return embedded.loki("POST", PATH, data=body, headers={**JSON, **headers})


def stream(labels, *values):
    return {"streams": [{"stream": labels, "values": list(values)}]}


def found(embedded, query):
    """The streams that a query finds: [(labels, lines)]."""
    answer = embedded.loki.get("/loki/api/v1/query_range", params={"query": query})
    assert answer.status_code == 200, answer.text
    return [(one["stream"], [line for _, line in one["values"]]) for one in answer.json()["data"]["result"]]


def soon(embedded, query):
    return eventually(lambda: found(embedded, query), seconds=2)


@pytest.fixture
def now():
    return time.time_ns()


@pytest.mark.parametrize("cut", [b"\xff", b"\\ud83d"], ids=["a byte", "half a pair"])
def test_what_is_no_unicode_in_a_push_becomes_the_character_for_that(embedded, now, cut):
    body = json.dumps(stream({"cut": f"cut-{now}"}, [str(now), "aCUT"])).encode().replace(b"CUT", cut)
    assert push(embedded, body).status_code == 204
    [(_, lines)] = soon(embedded, f'{{cut="cut-{now}"}}')
    assert lines == ["a\ufffd"]


@pytest.mark.parametrize(("pack", "headers"), [(bytes, {}), (gzip.compress, {"Content-Encoding": "gzip"})])
def test_a_pushed_line_is_found_by_the_labels_of_its_stream(embedded, now, pack, headers):
    labels = {"job": "backup", "host": f"db-{now}"}
    answer = push(embedded, pack(json.dumps(stream(labels, [str(now), "done"])).encode()), **headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert soon(embedded, f'{{host="db-{now}"}}') == [({**labels, "service_name": "backup"}, ["done"])]
    names = embedded.loki.get("/loki/api/v1/labels").json()["data"]
    assert {"job", "host", "service_name"} <= set(names)
    assert f"db-{now}" in embedded.loki.get("/loki/api/v1/label/host/values").json()["data"]
    query = f'sum by (job) (count_over_time({{job="backup", host="db-{now}"}}[5m]))'
    counted = embedded.loki.get("/loki/api/v1/query", params={"query": query}).json()["data"]["result"]
    assert [(one["metric"], one["value"][1]) for one in counted] == [({"job": "backup"}, "1")]


def test_structured_metadata_is_asked_for_as_a_label_and_makes_no_stream(embedded, now):
    trace = f"{now:032x}"
    values = [[str(now), "a", {"trace_id": trace, "user.id": "7"}], [str(now + 1), "b", {}], [str(now + 2), "c"]]
    assert push(embedded, stream({"app": f"meta-{now}"}, *values)).status_code == 204
    common = {"app": f"meta-{now}", "service_name": f"meta-{now}"}
    assert soon(embedded, f'{{app="meta-{now}"}} | trace_id="{trace}"') == [
        ({**common, "trace_id": trace, "user_id": "7"}, ["a"])
    ]
    series = embedded.loki.get("/loki/api/v1/series", params={"match[]": f'{{app="meta-{now}"}}'}).json()["data"]
    assert series == [common]


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"service_name": "a", "app": "b"}, "a"),
        ({"app": "b", "job": "c"}, "b"),
        ({"job": "c", "container": "d"}, "d"),
        ({"host": "e"}, "unknown_service"),
        ({"service_name": "", "name": "f"}, "f"),
        ({"host": 5, "job": "g"}, "g"),
    ],
)
def test_a_stream_gets_the_name_of_its_service_as_in_loki(embedded, now, labels, service):
    assert push(embedded, stream({**labels, "of": str(now)}, [str(now), "x"])).status_code == 204
    ((kept, _),) = soon(embedded, f'{{of="{now}"}}')
    given = {name: str(value) for name, value in labels.items() if value}
    assert kept == {**given, "of": str(now), "service_name": service}


def test_what_comes_twice_is_kept_once(embedded, now):
    body = stream({"twice": str(now)}, [str(now), "x"], [str(now), "x"])
    assert [push(embedded, body).status_code for _ in range(2)] == [204, 204]
    assert soon(embedded, f'{{twice="{now}"}}')[0][1] == ["x"]


def test_a_stream_without_lines_is_taken_and_leaves_nothing(embedded, now):
    for body in (stream({"empty": str(now)}), {"streams": [{"stream": {"empty": str(now)}}]}):
        assert push(embedded, body).status_code == 204
    assert push(embedded, stream({"after": str(now)}, [str(now), "x"])).status_code == 204
    assert soon(embedded, f'{{after="{now}"}}')
    assert found(embedded, f'{{empty="{now}"}}') == []


OLD, FUTURE = -49 * 3600 * SECOND, 11 * 60 * SECOND  # it keeps 48 hours
UNKEPT = {
    "too old": ({"a": "b"}, OLD, "x", {}, r"""entry for stream '{a="b", of="OF", service_name="unknown_service"}' """),
    "too new": ({}, FUTURE, "x", {}, "has timestamp too new: "),
    "long line": ({}, 0, "ü" * 131073, {}, "Max entry size '262144' bytes exceeded for stream "),
    "many labels": ({f"l{n}": "x" for n in range(15)}, 0, "x", {}, " has 16 label names; limit 15"),
    "long name": ({"n" * 1025: "x"}, 0, "x", {}, " has label name too long: "),
    "long value": ({"n": "x" * 2049}, 0, "x", {}, " has label value too long: "),
    "much metadata": ({}, 0, "x", {f"m{n}": "x" for n in range(129)}, "labels: '129', limit: '128'"),
    "large metadata": ({}, 0, "x", {"m": "x" * 65536}, "too large: '65537' bytes, limit: '65536' bytes"),
}


@pytest.mark.parametrize("case", UNKEPT)
def test_a_line_that_cannot_be_kept_is_a_400_in_lokis_words_and_the_others_are_kept(embedded, now, case):
    labels, shift, line, metadata, words = UNKEPT[case]
    of = {"of": str(now)}
    broken = {"stream": {**labels, **of}, "values": [[str(now + shift), line, metadata]] * 2}
    good = {"stream": of, "values": [[str(now), "good"]]}
    answer = push(embedded, {"streams": [broken, good]})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert words.replace("OF", str(now)) in answer.text
    assert answer.text.count("stream '") == 1  # a reason is told once
    assert soon(embedded, f'{{of="{now}"}}') == [({**of, "service_name": "unknown_service"}, ["good"])]


def test_what_lies_just_inside_the_bounds_is_kept(embedded, now):
    labels = {f"l{n}": "x" * 2048 for n in range(14)} | {"inside": str(now), "service_name": "x"}
    metadata = {f"m{n}": "x" for n in range(128)}
    values = [[str(now - 47 * 3600 * SECOND), "x" * 262144], [str(now + 9 * 60 * SECOND), "y", metadata]]
    answer = push(embedded, stream(labels, *values))
    assert answer.status_code == 204, answer.text


def test_an_old_line_is_told_what_would_be_young_enough(embedded, now):
    text = push(embedded, stream({"a": "b"}, [str(now + OLD), "x"])).text
    day = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.search(f"too old: {day}, oldest acceptable timestamp is: {day}\n$", text)


MALFORMED = {
    "empty": b"",
    "no json": b"{",
    "a text": b'"x"',
    "streams no list": b'{"streams": {}}',
    "stream no object": b'{"streams": ["x"]}',
    "no labels": {"streams": [{"values": []}]},
    "labels as text": {"streams": [{"stream": '{a="b"}', "values": []}]},
    "a dot in a label": stream({"a.b": "c"}),
    "a label that begins with a digit": stream({"1a": "c"}),
    "values no list": {"streams": [{"stream": {"a": "b"}, "values": "x"}]},
    "a value that is no list": stream({"a": "b"}, "x"),
    "time as a number": stream({"a": "b"}, [1, "x"]),
    "time as a date": stream({"a": "b"}, ["2026-11-28T00:00:00Z", "x"]),
    "time in another script": stream({"a": "b"}, ["\u0661", "x"]),
    "line as an object": stream({"a": "b"}, ["1", {"x": 1}]),
    "line missing": stream({"a": "b"}, ["1"]),
    "metadata as text": stream({"a": "b"}, ["1", "x", "y"]),
    "metadata with a number": stream({"a": "b"}, ["1", "x", {"n": 1}]),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_push_that_is_not_right_is_refused_whole(embedded, now, case):
    body = MALFORMED[case]
    if isinstance(body, dict):
        body = {"streams": [*stream({"whole": str(now)}, [str(now), "x"])["streams"], *body["streams"]]}
    answer = push(embedded, body)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    assert push(embedded, stream({"after": str(now)}, [str(now), "x"])).status_code == 204
    assert soon(embedded, f'{{after="{now}"}}')
    assert found(embedded, f'{{whole="{now}"}}') == []


@pytest.mark.parametrize("body", [{}, {"streams": []}, {"streams": None}])
def test_a_push_without_streams_is_a_422_as_in_loki(embedded, body):
    answer = push(embedded, body)
    assert (answer.status_code, answer.text) == (422, MISSING)


@pytest.mark.parametrize("labels", [{}, {"a": ""}])
def test_a_stream_needs_a_label(embedded, now, labels):
    answer = push(embedded, stream(labels, [str(now), "x"]))
    assert (answer.status_code, answer.text) == (400, "error at least one label pair is required per stream\n")


@pytest.mark.parametrize("kind", ["application/x-protobuf", "text/plain", "text/plain; x=application/json", None])
def test_only_json_is_taken_so_no_page_of_somebody_elses_can_push(embedded, now, kind):
    """A browser sends these without asking first; protobuf is what Loki takes them for."""
    body = json.dumps(stream({"by": "page"}, [str(now), "x"])).encode()
    answer = embedded.loki("POST", PATH, data=body, headers={"Content-Type": kind, "Origin": "https://evil.example"})
    assert answer.status_code == 415
    assert "send Content-Type application/json" in answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("encoding", ["snappy", "deflate", "br", "gzip"])
def test_an_encoding_that_is_not_taken_or_not_true_is_a_400(embedded, encoding):
    answer = push(embedded, {}, **{"Content-Encoding": encoding})
    assert answer.status_code == 400
    assert "gzip" in answer.text


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_push_that_is_too_large_is_a_413(embedded, pack):
    headers = {} if pack is bytes else {"Content-Encoding": "gzip"}
    assert push(embedded, pack(b" " * (8 * 1024 * 1024 + 1)), **headers).status_code == 413


@pytest.fixture
def stuck(tmp_path):
    """A client of the Loki port of a backend whose writer is stuck."""
    backend = Backend(BackendSettings(embedded_database=tmp_path / "embedded.sqlite", queue_mb=1))
    backend.database.start()
    running, go = threading.Event(), threading.Event()
    backend.database.write(lambda _: (running.set(), go.wait(20)))
    assert running.wait(5)
    yield backend.apps()["loki_port"].test_client()
    go.set()
    backend.database.stop()


def test_a_writer_that_is_behind_says_come_again_on_both_paths(stuck, now):
    values = [[str(now + number), "x" * 1000] for number in range(300)]
    body = json.dumps(stream({"a": "b"}, *values)).encode()
    answers = []
    while not answers or answers[-1].status_code == 204:
        answers.append(stuck.post(PATH, data=body, headers=JSON))
    assert len(answers) > 1
    assert (answers[-1].status_code, answers[-1].headers["Retry-After"]) == (503, "1")
    assert answers[-1].text == "the writer is behind: send it again in a moment\n"
    answer = stuck.post("/otlp/v1/logs", data=b"{}", headers=JSON)
    assert (answer.status_code, answer.json["code"]) == (503, 14)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_push_is_a_post(embedded, method):
    assert embedded.loki(method, PATH).status_code == 405


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_lokis_otlp_path_takes_log_records(embedded, now, form):
    line = f'{{"event":"otlp.{form}"}}'
    if form == "protobuf":
        message = log_request("order-service", [(now, "info", line, now.to_bytes(16, "big"), bytes(7) + b"1")])
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        body = gzip.compress(message.SerializeToString())
    else:
        record = {"timeUnixNano": str(now), "body": {"stringValue": line}, "traceId": f"{now:032x}"}
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "order-service"}}]}
        body = json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}).encode()
        headers = JSON
    answer = embedded.loki("POST", "/otlp/v1/logs", data=body, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    ((labels, lines),) = soon(embedded, f'{{service_name="order-service"}} | trace_id="{now:032x}"')
    assert lines == [line]
    assert labels["trace_id"] == f"{now:032x}"


def test_what_lokis_otlp_path_refuses_is_a_status(embedded):
    headers = {"Content-Type": "application/x-protobuf"}
    answer = embedded.loki("POST", "/otlp/v1/logs", data=b"\xff", headers=headers)
    assert answer.status_code == 400
    assert Status.FromString(answer.content).message
    assert embedded.loki("POST", "/otlp/v1/logs", data=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert embedded.loki.get("/otlp/v1/logs").status_code == 405


def test_what_is_taken_and_refused_is_counted_on_both_ports(embedded, now):
    def count(line):
        (shown,) = {
            next(text for text in client.get("/metrics").text.splitlines() if text.startswith(line)).rpartition(" ")[2]
            for client in (embedded.otlp, embedded.loki)
        }
        return float(shown)

    taken, refused = "embedded_log_records_received_total", 'embedded_refused_total{reason="malformed",signal="logs"}'
    assert "malformed" in REQUEST_REASONS
    before = count(taken), count(refused)
    push(embedded, stream({"a": "b"}, [str(now), "x"], [str(now), "y"]))
    push(embedded, b"{")
    assert (count(taken), count(refused)) == (before[0] + 2, before[1] + 1)


@pytest.mark.parametrize("port", ["otlp", "jaeger", "loki"])
@pytest.mark.parametrize(("host", "status"), [("evil.example", 400), ("localhost:1", 200), ("loki:3100", 200)])
def test_a_page_whose_name_was_given_this_address_is_refused(embedded, port, host, status):
    client = getattr(embedded, port)
    assert client.get("/ready", headers={"Host": host}).status_code == status


def test_further_names_may_be_trusted(start_embedded):
    backend = start_embedded(TRUSTED_HOSTS="logs.example.org, .shop.svc")
    for host, status in (("logs.example.org", 200), ("loki.shop.svc:3100", 200), ("evil.example", 400)):
        assert backend.loki.get("/ready", headers={"Host": host}).status_code == status


def rejected(embedded):
    text = embedded.otlp.get("/metrics").text
    return {
        reason: float(count)
        for reason, count in re.findall(r'embedded_log_records_rejected_total{reason="(.*?)"} (\S+)', text)
    }


def test_each_line_that_a_push_loses_is_counted_by_its_reason(embedded, now):
    before = rejected(embedded)
    metadata = {f"m{n}": "x" for n in range(129)}
    lines = [(OLD, "x"), (OLD, "y"), (FUTURE, "x"), (0, "x" * 262_145), (0, "x", metadata)]
    body = stream({"a": str(now)}, *[[str(now + at), *line] for at, *line in lines])
    body["streams"] += stream({"n": "x" * 2049}, *[[str(now), "x"]] * 4)["streams"]
    assert push(embedded, body).status_code == 400
    lost = {reason: count - before[reason] for reason, count in rejected(embedded).items()}
    assert lost == {"labels": 4, "malformed": 0, "metadata": 1, "too_long": 1, "too_new": 1, "too_old": 2}


def test_a_push_of_many_different_mistakes_is_told_of_the_first_ten_and_keeps_no_more(backend, now):
    values = [[str(now + OLD - number * SECOND), ""] for number in range(5000)]
    body = json.dumps(stream({f"l{n}": "x" * 2000 for n in range(10)}, *values))
    client = backend.apps()["loki_port"].test_client()
    tracemalloc.start()
    answer = client.post(PATH, data=body, headers=JSON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 400
    assert answer.text.count("too old") == 10
    assert peak < 20e6  # a message has 20 KB


@pytest.mark.parametrize(
    "value",
    ["[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, f'{2**70}, "b": "\\ud800"'],
    ids=["list", "object", "number"],
)
def test_a_label_that_cannot_be_written_is_malformed(embedded, now, value):
    body = f'{{"streams":[{{"stream":{{"a":{value}}},"values":[["{now}","x"]]}}]}}'
    answer = push(embedded, body.encode())
    assert (answer.status_code, answer.text) == (400, "couldn't parse labels: the value of 'a' is no text\n")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"false", b'[{"stream":{"a":"b"},"values":[]}]'])
def test_a_push_that_is_no_object_is_malformed(embedded, body):
    assert push(embedded, body).status_code == 400
