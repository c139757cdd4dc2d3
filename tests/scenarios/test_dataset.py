"""Runs as data: what is written is what the telemetry said, in forms that others read."""

import csv
import dataclasses
import json
import math
import random
import re
import subprocess
import time

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from werkzeug import Response

from local import rundir
from observability.receiving.messages import read_json
from observability.story.errors import StoryError
from observability.story.window import Window
from scenarios import acting, cli, describing, flags
from scenarios.dataset import command, gathering, openmetrics, otlp, rcaeval, writing
from scenarios.dataset.gathering import Gathering, Line
from scenarios.dataset.health import HEALTH
from scenarios.dataset.recording import NotFelt, Recorded
from scenarios.dataset.writing import Planned
from scenarios.place import Place
from tests.conformance import payloads
from tests.fixtures.embedded import running_embedded
from tests.fixtures.ports import free_ports
from tests.fixtures.programs import find_promtool, has_program
from tests.fixtures.real import is_there, running, running_real
from tests.fixtures.services import Client, eventually

JSON = {"Content-Type": "application/json"}
SENT = [
    payloads.order,
    payloads.failed,
    payloads.attribute_types,
    payloads.odd_names,
    payloads.linked,
    payloads.short_id,
]


# -- traces


def trace_of(api, trace):
    """A trace as Jaeger's API gives it, its spans and processes in an order that does not depend on chance."""

    def found():
        answer = api.get(f"/api/traces/{trace.hex}")
        return answer.status_code == 200 and len(answer.json()["data"][0]["spans"]) == len(trace.spans)

    eventually(found, 20, pause=0.1)
    return api.get(f"/api/traces/{trace.hex}").json()["data"][0]


def in_order(trace):
    spans = [
        {**span, "process": trace["processes"][span["processID"]], "processID": "", "warnings": None}
        for span in trace["spans"]
    ]
    return sorted(spans, key=lambda span: span["spanID"])


def sent(backend, make):
    trace = make()
    for request in trace.requests():
        assert backend.otlp.send("traces", request).status_code == 200
    return trace


def check_round_trip(first, second_otlp, second_api, make):
    """Send a trace, ask for it, write it, send what was written to another backend, and ask for it there."""
    trace = sent(first, make)
    was = trace_of(first.jaeger, trace)
    line = otlp.text(otlp.of_trace(was))
    assert line.count("\n") == 1
    answer = second_otlp("POST", "/v1/traces", data=line.encode(), headers=JSON)
    assert (answer.status_code, answer.json().get("partialSuccess", {})) == (200, {}), answer.text
    assert in_order(trace_of(second_api, trace)) == in_order(was)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    with running_embedded(tmp_path_factory.mktemp("second")) as backend:
        yield backend


@pytest.mark.parametrize("make", SENT)
def test_a_written_trace_that_is_sent_again_is_the_same(embedded, second, make):
    check_round_trip(embedded, second.otlp, second.jaeger, make)


if is_there("jaeger"):

    @pytest.mark.slow
    def test_a_written_trace_that_is_sent_to_jaeger_is_the_same(embedded, tmp_path):
        with running_real("jaeger", tmp_path) as real:
            for make in SENT:
                check_round_trip(embedded, real.otlp, real.api, make)


if has_program("otelcol"):

    @pytest.mark.slow
    def test_it_is_written_as_the_collectors_file_exporter_writes_it(embedded, tmp_path):
        [port] = free_ports(1)
        exported = tmp_path / "exported.jsonl"
        settings = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {"file": {"path": str(exported), "flush_interval": "50ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {name: {"receivers": ["otlp"], "exporters": ["file"]} for name in ("traces", "logs")},
            },
        }
        (tmp_path / "config.yaml").write_text(json.dumps(settings))
        collector = Client(f"http://127.0.0.1:{port}")
        traces = [otlp.of_trace(trace_of(embedded.jaeger, sent(embedded, make))) for make in SENT]
        written = [*traces, otlp.of_lines([line_of("order.created"), line_of("order.settled", level="error")])]
        started = [has_program("otelcol"), "--config", str(tmp_path / "config.yaml")]
        with running(tmp_path, started, {}, lambda: collector.get("/").status_code == 404):
            for request in written:
                path = "/v1/traces" if "resourceSpans" in request else "/v1/logs"
                assert collector("POST", path, data=otlp.text(request).encode(), headers=JSON).status_code == 200
            eventually(lambda: exported.exists() and exported.read_text().count("\n") == len(written), 20, pause=0.1)
            collector.session.close()
        theirs = [json.loads(line) for line in exported.read_text().split("\n")[:-1]]
        for one, other in zip(sorted(theirs, key=trace_ids), sorted(written, key=trace_ids), strict=True):
            assert without_empty(one) == without_empty(other)


def trace_ids(request):
    return re.findall('"traceId": "([0-9a-f]{32})"', json.dumps(request))


def without_empty(value):
    """JSON without what says nothing, which one writer leaves out and another does not."""
    if isinstance(value, dict):
        whole = {key: without_empty(one) for key, one in value.items()}
        return {key: one for key, one in whole.items() if one not in ("", [], {}, 0)}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def test_ids_are_hexadecimal_and_kinds_and_statuses_are_numbers_as_otlp_wants_them(embedded):
    trace = sent(embedded, payloads.failed)
    said = json.loads(otlp.text(otlp.of_trace(trace_of(embedded.jaeger, trace))))
    spans = [span for group in said["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]
    assert {span["traceId"] for span in spans} == {trace.hex}
    assert all(re.fullmatch("[0-9a-f]{16}", span["spanId"]) for span in spans)
    assert sorted((span["kind"], span["status"]["code"]) for span in spans) == [(2, 2), (3, 1)]
    assert all(isinstance(span["startTimeUnixNano"], str) for span in spans)
    message = ExportTraceServiceRequest()
    assert read_json(json.dumps(said).encode(), message) == 0
    assert message.resource_spans[0].scope_spans[0].spans[0].trace_id == trace.id


# -- log lines


def line_of(event, *, at=None, level="info", trace_id="a" * 32, **more):
    labels = {"service_name": "order-service", "service_namespace": "shop", "level": level, "trace_id": trace_id}
    text = json.dumps({"event": event, **more}, separators=(",", ":"))
    return Line(time=at or time.time_ns(), labels=labels, text=text)


def test_a_written_log_line_that_is_sent_again_is_found_by_its_trace(second):
    trace_id = random.randbytes(16).hex()
    line = line_of("order.created", level="error", trace_id=trace_id, note="Grüße")
    answer = second.otlp("POST", "/v1/logs", data=otlp.text(otlp.of_lines([line])).encode(), headers=JSON)
    assert answer.status_code == 200, answer.text
    query = f'{{service_name="order-service"}} | trace_id="{trace_id}" | level="error"'
    asked = {"query": query, "start": str(line.time - 10**9)}

    def found():
        return second.loki.get("/loki/api/v1/query_range", params=asked).json()["data"]["result"]

    eventually(found, 20, pause=0.1)
    [stream] = found()
    assert stream["values"] == [[str(line.time), line.text]]


@pytest.mark.parametrize(
    ("level", "number"), [("debug", 5), ("info", 9), ("warning", 13), ("error", 17), ("critical", 21), ("", 0)]
)
def test_a_log_records_severity_is_the_data_models(level, number):
    message = ExportLogsServiceRequest()
    assert read_json(otlp.text(otlp.of_lines([line_of("a", level=level)])).encode(), message) == 0
    [record] = message.resource_logs[0].scope_logs[0].log_records
    assert (record.severity_number, record.severity_text) == (number, level)
    resource = MessageToDict(message.resource_logs[0].resource)["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "order-service"}} in resource


def test_a_line_with_an_odd_trace_id_is_written_without_it():
    message = ExportLogsServiceRequest()
    assert read_json(otlp.text(otlp.of_lines([line_of("a", trace_id="none")])).encode(), message) == 0
    assert message.resource_logs[0].scope_logs[0].log_records[0].trace_id == b""


# -- metrics


TYPES = {
    "orders": ("counter", "Orders."),
    "wait_seconds": ("histogram", "A wait."),
    "odd": ("counter", "Its name does not end in _total."),
    "size": ("gauge", 'With "quotes" and \\ in it.'),
}
SERIES = {
    "orders_total": [{"metric": {"job": "a"}, "values": [[100.5, "1"], [105.5, "3"]]}],
    "wait_seconds_bucket": [
        {"metric": {"job": "a", "le": bound}, "values": [[100.5, count], [105.5, count]]}
        for bound, count in (("+Inf", "3"), ("10.0", "2"), ("0.5", "1"))
    ],
    "wait_seconds_sum": [{"metric": {"job": "a"}, "values": [[100.5, "4.25"], [105.5, "4.25"]]}],
    "wait_seconds_count": [{"metric": {"job": "a"}, "values": [[100.5, "3"], [105.5, "3"]]}],
    "odd": [{"metric": {"job": 'quoted "b"'}, "values": [[100.5, "NaN"]]}],
    "size": [{"metric": {"job": "a"}, "values": [[100.5, "1e+21"]]}],
    "job:rate1m": [{"metric": {"job": "a"}, "values": [[100.5, "0.5"]]}],
}


class Metrics:
    def metrics(self):
        return list(SERIES)

    def types(self):
        return TYPES

    def samples(self, name):
        return [{**one, "metric": {"__name__": name, **one["metric"]}} for one in SERIES[name]]


def test_promtool_makes_blocks_of_the_metrics_with_each_sample_at_its_time(tmp_path):
    promtool = find_promtool()
    with (tmp_path / "metrics.txt").open("wb") as file:
        openmetrics.write(Metrics(), file)
    blocks = tmp_path / "data"
    made = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "metrics.txt"), str(blocks)]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (blocks / "wal").mkdir()  # without which `dump` does not look at blocks
    dumped = subprocess.run([promtool, "tsdb", "dump", str(blocks)], capture_output=True, text=True, check=False)
    assert dumped.returncode == 0, dumped.stderr
    found = sorted(re.findall(r'^\{__name__="([^"]+)".*\} (\S+) (\d+)$', dumped.stdout, re.MULTILINE))
    expected = sorted(
        (name, value, float(at) * 1000)
        for name, series in SERIES.items()
        for one in series
        for at, value in one["values"]
    )
    assert [(name, int(at)) for name, _, at in found] == [(name, at) for name, _, at in expected]
    for (name, value, _), (_, right, _) in zip(found, expected, strict=True):
        assert float(value) == float(right) or math.isnan(float(right)), name


def test_metrics_have_their_types_and_a_histogram_its_buckets_in_order():
    families = {family.name: family for family in openmetrics.families(SERIES, TYPES)}
    assert {name: family.kind for name, family in families.items()} == {
        "orders": "counter",
        "wait_seconds": "histogram",
        "odd": "unknown",
        "size": "gauge",
        "job:rate1m": "unknown",
    }
    series = [one for name in families["wait_seconds"].members for one in Metrics().samples(name)]
    text = openmetrics.text(families["wait_seconds"], series).decode()
    assert re.findall(r'le="([^"]+)"', text) == ["0.5", "10.0", "+Inf"] * 2
    assert text.index("_bucket") < text.index("_sum") < text.index("_count")


# -- asking for all of a time


class Apis:
    """The three APIs: `says` has what each answers; what is asked for is noted."""

    def __init__(self, server):
        self.asked, self.traces, self.lines, self.most = [], [], [], 10**6
        self.place = Place(flags.DEFAULT, *(server.root,) * 4, None)
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def _answer(self, request):  # noqa: PLR0911  # an answer for each path
        self.asked.append(request)
        match request.path:
            case "/api/services":
                return _json(["nginx", "order-service"])  # both have a part in each trace
            case "/api/traces":
                start, end = (int(request.args[name]) for name in ("start", "end"))
                found = [one for one in self.traces if start <= one["spans"][0]["startTime"] < end]
                if len(found) > self.most:
                    return Response("this would be more than 32 MiB", 400)
                return _json(found[: int(request.args["limit"])])
            case "/loki/api/v1/query_range":
                start, end = (int(request.args[name]) for name in ("start", "end"))
                found = [one for one in self.lines if start <= one.time < end][: int(request.args["limit"])]
                result = [{"stream": one.labels, "values": [[str(one.time), one.text]]} for one in found]
                return _json({"resultType": "streams", "result": result})
            case "/api/v1/metadata":
                return _json({name: [{"type": kind, "help": says, "unit": ""}] for name, (kind, says) in TYPES.items()})
            case "/api/v1/label/__name__/values":
                return _json([*SERIES, "simulated_faults", "simulated_other_total", "feature_flag_file_failures_total"])
            case "/api/v1/query":
                name = re.match(r'\{__name__="(.+)"\}', request.args["query"])[1]
                return _json({"resultType": "matrix", "result": Metrics().samples(name)})
            case "/api/v1/query_range":
                value = {"metric": {"job": "order-service"}, "values": [[float(request.args["start"]), "7"]]}
                return _json({"resultType": "matrix", "result": [value]})
        return Response("nothing here", 404)


def _json(data):
    return Response(json.dumps({"status": "success", "data": data}), mimetype="application/json")


@pytest.fixture
def apis(peer):
    return Apis(peer())


def made(number, start, **tags):
    span = {
        "traceID": f"{number + 1:032x}",
        "spanID": f"{number + 1:016x}",
        "processID": "p1",
        "operationName": "POST /orders/",
        "startTime": int(start * 1e6),
        "duration": 2000,
        "references": [],
        "tags": [{"key": key, "type": "string", "value": value} for key, value in tags.items()],
        "logs": [
            {"timestamp": int(start * 1e6), "fields": [{"key": "event", "type": "string", "value": name}]}
            for name in ("feature_flag.evaluation", "exception")
        ],
    }
    return {"traceID": span["traceID"], "spans": [span], "processes": {"p1": {"serviceName": "nginx", "tags": []}}}


START = 1_795_956_000.0
WINDOW = Window(START, START + 20)


def test_each_trace_of_the_time_is_found_once_however_many_there_are(apis, monkeypatch):
    monkeypatch.setattr(gathering, "_TRACES", 10)
    apis.traces = [made(number, START + number / 10) for number in range(205)]  # the last five are after the time
    apis.most = 30
    found = [trace["traceID"] for trace in Gathering(apis.place, WINDOW).traces()]
    assert (len(found), len(set(found))) == (200, 200)


def test_each_log_line_of_the_time_is_found_once_the_oldest_first(apis, monkeypatch):
    monkeypatch.setattr(gathering, "_LINES", 7)
    apis.lines = [line_of("a", at=int((START + number / 10) * 1e9)) for number in range(205)]
    found = [line.time for lines in Gathering(apis.place, WINDOW).lines() for line in lines]
    assert found == [line.time for line in apis.lines[:200]]


def test_a_flood_is_cut_and_it_is_said_so(apis, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_A_SECOND", 2)
    apis.traces = [made(number, START + number / 10) for number in range(200)]
    apis.lines = [line_of("a", at=int((START + number / 10) * 1e9)) for number in range(200)]
    asked = Gathering(apis.place, WINDOW)
    assert len(list(asked.traces())) == 40
    assert sum(map(len, asked.lines())) == 40
    assert asked.counts.cut == {"spans", "lines"}


def test_what_tells_of_flags_is_left_out_unless_it_is_asked_for(apis):
    apis.traces = [made(1, START, **{"feature_flag.key": "payment-slow", "http.route": "/orders/"})]
    apis.lines = [line_of("flags.changed", at=int(START * 1e9)), line_of("order.created", at=int(START * 1e9))]
    asked = Gathering(apis.place, WINDOW)
    [span] = next(asked.traces())["spans"]
    assert [tag["key"] for tag in span["tags"]] == ["http.route"]
    assert [log["fields"][0]["value"] for log in span["logs"]] == ["exception"]
    assert [json.loads(line.text)["event"] for lines in asked.lines() for line in lines] == ["order.created"]
    assert asked.metrics() == list(SERIES)
    frank = Gathering(apis.place, WINDOW, with_flags=True)
    assert "feature_flag" in json.dumps(list(frank.traces()))
    assert "flags.changed" in str(list(frank.lines()))
    assert "simulated_faults" in frank.metrics()


TRACEBACK = """Traceback (most recent call last):
  File "/app/product_service/routes.py", line 58, in read_product
    return catalogue.get(product_id)
  File "/app/product_service/faults.py", line 32, in get
    raise KeyError(product.sku)
           ^^^^^^^^^^^^^^^^^^^^^
  File "/app/servicekit/flags.py", line 12, in value
    value = self._ask(key)
  File "/app/shop/link.py", line 12, in _connect
    self.wait()
  File "/app/servicekit/database/pool.py", line 3, in fetch_one
    raise DependencyUnavailable
KeyError"""
REAL = """Traceback (most recent call last):
  File "/app/product_service/routes.py", line 58, in read_product
    return catalogue.get(product_id)
  File "/app/servicekit/database/pool.py", line 3, in fetch_one
    raise DependencyUnavailable
KeyError"""


def test_frames_of_the_code_that_makes_faults_are_left_out(apis):
    made_one = made(1, START)
    [event] = [log for log in made_one["spans"][0]["logs"] if log["fields"][0]["value"] == "exception"]
    event["fields"].append({"key": "exception.stacktrace", "type": "string", "value": TRACEBACK})
    apis.traces = [made_one]
    frames = ["/app/product_service/routes.py:58 read_product", "/app/product_service/faults.py:32 get"]
    apis.lines = [
        line_of("request.failed", at=int(START * 1e9), exception_type="KeyError", exception_frames=frames),
        Line(time=int(START * 1e9), labels={"service_name": "product-service"}, text=TRACEBACK),
    ]
    asked = Gathering(apis.place, WINDOW)
    [span] = next(asked.traces())["spans"]
    assert span["logs"][0]["fields"][1]["value"] == REAL
    event, text = (line.text for lines in asked.lines() for line in lines)
    assert json.loads(event) == {
        "event": "request.failed",
        "exception_type": "KeyError",
        "exception_frames": frames[:1],
    }
    assert text == REAL
    frank = Gathering(apis.place, WINDOW, with_flags=True)
    assert "faults.py" in json.dumps(list(frank.traces()))
    assert "faults.py" in str(list(frank.lines()))


def test_a_line_without_anything_to_hide_is_written_as_it_was(apis):
    text = '{ "event":"odd",  "note": "Gr\\u00fc\u00dfe", "file": "defaults.py:3 x"}'
    apis.lines = [Line(time=int(START * 1e9), labels={}, text=text)]
    assert [line.text for lines in Gathering(apis.place, WINDOW).lines() for line in lines] == [text]


def test_an_api_that_does_not_answer_ends_it_with_a_sentence(apis):
    apis.place = Place(flags.DEFAULT, *("http://127.0.0.1:9",) * 4, None)
    asked = Gathering(apis.place, WINDOW)
    for ask in (asked.traces, asked.lines, asked.metrics, asked.types):
        with pytest.raises(StoryError, match="does not answer"):
            list(ask())


# -- files

SCENARIO = describing.read("currency-slow")
RECORDED = Recorded(
    start=START, on=START + 10.4, off=START + 15, end=START + 20, measured="p95", before=0.1, during=0.9
)


@pytest.fixture
def written(apis, tmp_path):
    """A run that was written, and its folder."""
    apis.traces = [made(number, START + number, error="true") for number in range(20)]
    apis.lines = [line_of("order.left_pending", at=int((START + number) * 1e9)) for number in range(20)]
    apis.lines.append(Line(time=int(START * 1e9), labels={"service_name": "nginx"}, text="no JSON"))
    planned = Planned(SCENARIO, 3)
    writing.write(tmp_path, planned, RECORDED, Gathering(apis.place, WINDOW))
    return tmp_path / planned.name


def test_a_run_has_telemetry_and_truth_and_its_name_does_not_give_it_away(written):
    assert sorted(path.name for path in (written / "telemetry").iterdir()) == [
        *("about.json", "logs.jsonl", "metrics.txt", "traces.jsonl")
    ]
    truth = json.loads((written / "truth.json").read_text())
    assert truth["attribute"] == {"key": "shop.product.id", "value": "25"}
    assert (truth["service"], truth["operation"], truth["seed"], truth["variant"]) == (
        *("payment-service", "decide charge", 3, "on"),
    )
    assert (truth["on"], truth["on_unix"]) == ("2026-11-29T12:40:10.400Z", START + 10.4)
    about = json.loads((written / "telemetry" / "about.json").read_text())
    assert (about["traces"], about["lines"], about["cut"]) == (20, 21, [])
    assert "currency" not in written.name + json.dumps(about)


def test_rcaevals_loader_reads_it(written):
    """What RCAEval's `main.py` does with a case, without pandas, which this project does not have."""
    [path] = (written.parent / "rcaeval").glob("**/data.csv")
    service, fault = path.parent.parent.name.split("_")
    assert (service, fault) == ("payment-service", "delay")
    with (path.parent / "inject_time.txt").open() as file:
        inject_time = int(file.readlines()[0].strip())
    assert inject_time == int(START) + 10

    def read(name):
        with (path.parent / name).open(newline="") as file:
            return list(csv.DictReader(file))

    data = read("data.csv")
    times = [int(row["time"]) for row in data]
    assert times == list(range(int(START), int(START) + 20))
    assert sum(at < inject_time for at in times) == 10
    assert float(data[0]["order-service_latency-90"]) == 7
    for name in ("data.csv", "logts.csv", "tracets_err.csv", "tracets_lat.csv"):
        rows = read(name)
        columns = rows[0].keys() - {"time"}
        assert columns
        assert all(len(column.split("_")) == 2 and "-db" not in column for column in columns), name
        assert all(value == "" or math.isfinite(float(value)) for row in rows for value in row.values()), name
    assert [row["order-service_order.left-pending"] for row in read("logts.csv")] == ["15", "5"]
    assert [row["nginx_other"] for row in read("logts.csv")] == ["1", "0"]
    assert [row["nginx_POST-/orders/"] for row in read("tracets_err.csv")] == ["15", "5"]
    assert [row["nginx_POST-/orders/"] for row in read("tracets_lat.csv")] == ["2000", "2000"]
    spans = read("traces.csv")
    assert len(spans) == 20
    assert {"traceID", "spanID", "parentSpanID", "serviceName", "methodName", "operationName"} <= spans[0].keys()
    assert (int(spans[0]["startTime"]), int(spans[0]["duration"])) == (int(START * 1e6), 2000)


def test_the_faults_that_rcaeval_knows_are_called_as_there():
    names = {name: rcaeval.case(describing.read(name), "on", 1).split("/")[0] for name in describing.names()}
    assert names["payment-slow"] == "payment-service_delay"
    assert names["cpu-burn"] == "product-service_cpu"
    assert names["payment-down"] == "payment-service_payment-down"
    assert all(len(name.split("_")) == 2 for name in names.values())
    assert rcaeval._FAULTS.keys() <= names.keys()


def test_a_run_of_health_has_no_cause_and_is_no_case_of_rcaevals(apis, tmp_path):
    planned = Planned(HEALTH, 1)
    writing.write(tmp_path, planned, RECORDED, Gathering(apis.place, WINDOW))
    truth = json.loads((tmp_path / planned.name / "truth.json").read_text())
    assert (truth["scenario"], truth["service"], truth["operation"], truth["attribute"]) == ("health", *[None] * 3)
    assert truth.keys() & {"start", "on", "off", "end"} == {"start", "end"}
    assert [path.name for path in tmp_path.iterdir()] == [planned.name]


class Broken(Gathering):
    def __init__(self, place, what):
        super().__init__(place, WINDOW)
        self._what = what

    def metrics(self):
        raise self._what


@pytest.mark.parametrize("what", [KeyboardInterrupt, StoryError("Prometheus has gone.")])
def test_a_run_that_is_not_written_whole_is_not_there(apis, tmp_path, what):
    apis.traces = [made(1, START)]
    with pytest.raises(what if isinstance(what, type) else type(what)):
        writing.write(tmp_path, Planned(SCENARIO, 1), RECORDED, Broken(apis.place, what))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_is_in_nobodys_way(apis, tmp_path):
    planned = Planned(SCENARIO, 1)
    (tmp_path / f".part-{planned.name}" / "run" / "telemetry").mkdir(parents=True)
    (tmp_path / "rcaeval" / rcaeval.case(SCENARIO, "on", 1) / "old").mkdir(parents=True)
    writing.write(tmp_path, planned, RECORDED, Gathering(apis.place, WINDOW))
    assert not list(tmp_path.glob(".part-*"))
    assert not list(tmp_path.glob("**/old"))


def test_an_attribute_that_only_flags_tell_is_no_truth_without_them():
    scenario = SCENARIO.model_copy(
        update={"truth": SCENARIO.truth.model_copy(update={"attribute": "feature_flag.result.variant=on"})}
    )
    assert Planned(scenario, 1).truth(RECORDED, with_flags=False)["attribute"] is None
    assert Planned(scenario, 1).truth(RECORDED, with_flags=True)["attribute"]["value"] == "on"


# -- the command


@pytest.fixture
def recorder(monkeypatch, apis, tmp_path):
    """The command with runs that take no time; what is recorded, and what fails."""
    done, fails = [], set()

    def record(scenario, where, seed, lengths, say, asked):
        if scenario.name in fails:
            raise NotFelt("Nobody felt it.")
        done.append((scenario.name, getattr(scenario.switch, "to", ""), seed))
        asked()
        return RECORDED

    monkeypatch.setattr(command, "record", record)
    monkeypatch.setattr(command, "noise", lambda *_: [])
    path = tmp_path / "flags" / "flags.json"  # another test's, at the same time, would be another run
    rundir.switch_faults_off(path)
    apis.place = dataclasses.replace(apis.place, flags=path)
    monkeypatch.setattr(command.finding, "find", lambda: apis.place)
    monkeypatch.chdir(tmp_path)
    return done, fails


def test_it_records_each_scenario_with_each_seed_and_another_time_only_what_is_missing(recorder, tmp_path, capsys):
    done, fails = recorder
    fails.add("payment-down")
    asked = ["dataset", "payment-slow", "payment-down", "--seeds", "2"]
    assert cli.main(asked) == 1
    assert sorted(done) == [("payment-slow", "on", 1), ("payment-slow", "on", 2)]
    assert (
        "2 of 4 could not be recorded: payment-down (on, seed 1), payment-down (on, seed 2)." in capsys.readouterr().out
    )
    fails.clear()
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 of 4 are there already.\n2 to record into dataset: ")
    assert "4 of 4: " in said
    assert sorted(done)[:2] == [("payment-down", "on", 1), ("payment-down", "on", 2)]
    truths = [json.loads(path.read_text()) for path in (tmp_path / "dataset").glob("*/truth.json")]
    assert sorted((truth["scenario"], truth["seed"]) for truth in truths) == [
        *(("payment-down", 1), ("payment-down", 2), ("payment-slow", 1), ("payment-slow", 2))
    ]


def test_it_says_first_how_much_it_will_be_and_then_how_much_is_left(recorder, capsys):
    lengths = ["--before", "20", "--during", "20", "--after", "20"]
    assert cli.main(["dataset", "payment-slow", "payment-down", "--seeds", "3", *lengths]) == 0
    first, *more = capsys.readouterr().out.splitlines()
    assert first == "6 to record into dataset: about 10 min and 108 MB."  # 100 seconds each
    assert more[0].startswith("1 of 6: ")
    assert more[0].endswith(", about 10 min left")
    assert [line[:7] for line in more if " of 6: " in line] == [f"{number} of 6:" for number in range(1, 7)]


def test_after_ctrl_c_the_same_command_does_the_rest(recorder, monkeypatch, tmp_path, capsys):
    done, _ = recorder
    record = command.record

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        return record(*arguments)

    asked = ["dataset", "payment-slow", "--seeds", "4"]
    monkeypatch.setattr(command, "record", interrupted)
    assert cli.main(asked) == 130
    assert "The same command goes on in dataset." in capsys.readouterr().out
    assert len(list((tmp_path / "dataset").glob("run-*/truth.json"))) == 2
    assert not list((tmp_path / "dataset").glob(".part-*"))
    monkeypatch.setattr(command, "record", record)
    assert cli.main(asked) == 0
    assert capsys.readouterr().out.startswith("2 of 4 are there already.\n2 to record")
    assert sorted(seed for _, _, seed in done) == [1, 2, 3, 4]


def test_a_folder_with_something_else_is_refused(recorder, tmp_path, capsys):
    done, _ = recorder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("A year's work.")
    (tmp_path / "file").write_text("")
    for folder, says in (("mine", "mine has other files"), ("file", "file is no folder")):
        assert cli.main(["dataset", "payment-slow", "--to", folder]) == 1
        assert says in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert done == []
    (tmp_path / "new").mkdir()
    assert cli.main(["dataset", "payment-slow", "--to", "new"]) == 0


def test_a_scenario_that_needs_the_local_stack_is_left_out_in_compose(recorder, monkeypatch, capsys):
    monkeypatch.setattr(command, "record", lambda scenario, where, *_: acting.on(scenario.switch, where))
    assert cli.main(["dataset", "gateway-frozen"]) == 1
    assert "left out: This fault needs the local stack" in capsys.readouterr().out


def test_faults_that_come_in_strengths_are_recorded_in_each(recorder, capsys):
    done, _ = recorder
    assert cli.main(["dataset", "payment-slow", "payment-down", "--variants", "weak,strong", "--to", "d"]) == 0
    assert sorted(done) == [("payment-down", "on", 1), ("payment-slow", "strong", 1), ("payment-slow", "weak", 1)]


def test_a_tool_is_asked_while_the_fault_lasts_and_knows_whom_to_ask(recorder, apis, tmp_path, capfd):
    tool = tmp_path / "tool.sh"
    tool.write_text('echo "$JAEGER_URL $LOKI_URL $PROMETHEUS_URL $GATEWAY_URL"\nexit 3\n')
    assert cli.main(["dataset", "payment-slow", "--ask", f"sh {tool}"]) == 0
    [answer] = (tmp_path / "dataset" / "answers").iterdir()
    assert answer.stem in {path.name for path in (tmp_path / "dataset").iterdir()}
    assert answer.read_text() == " ".join([apis.place.jaeger] * 4) + "\n"
    assert "it ended with status 3" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing-such"], "There is no scenario"),
        (["payment-slow", "--seeds", "0"], "At least one seed"),
        (["payment-slow", "--before", "1"], "10 to 900 seconds"),
        (["payment-slow", "--during", "1e9"], "10 to 900 seconds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(recorder, capsys, arguments, says):
    done, _ = recorder
    assert cli.main(["dataset", *arguments]) == 1
    assert says in capsys.readouterr().err
    assert done == []


def test_with_another_fault_on_nothing_is_recorded(recorder, apis, capsys):
    done, _ = recorder
    flags.switch(apis.place.flags, "payment-flaky", "on")
    assert cli.main(["dataset", "payment-slow"]) == 1
    assert "Switched on already: payment-flaky (on)." in capsys.readouterr().err
    assert done == []


def test_names_of_runs_differ_and_stay():
    planned = command._planned([], 3, ["weak", "strong"])
    assert sum(one.scenario is HEALTH for one in planned) == 3
    assert len({one.name for one in planned}) == len(planned) > len(describing.names()) * 3
    assert Planned(describing.read("payment-slow"), 1).name == "run-2697eda2"
