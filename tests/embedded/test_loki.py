"""Loki's API on the wire, and the store behind it. That it answers as Loki does: tests/conformance."""

import os
import threading
import time

import hypothesis
import pytest
from flask import Flask
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from observability.embedded import logs, loki
from observability.embedded.database import Database
from observability.embedded.logs import LogEntry, LogStore
from observability.embedded.otlplogs import entries_from_otlp
from tests.conformance.payloads import log_request
from tests.fixtures.services import eventually

SECOND = 10**9
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # more of them than by default: `make fuzz`
LABELS = {"service_name": "order-service", "service_namespace": "shop"}
TRACE = "00000000000000000000000000000abc"


class Kept:
    """A log store in a file of its own, with its API in front."""

    def __init__(self, path, query_seconds=20.0, **limits):
        self.database = Database(path, **limits)
        self.store = LogStore(self.database)
        self.database.start()
        app = Flask(__name__)
        app.register_blueprint(loki.blueprint(self.store, query_seconds=query_seconds))
        self.client = app.test_client()
        self.start = time.time_ns() - 60 * SECOND

    def add(self, *lines, labels=None, metadata=None, step=SECOND):
        """Add lines, one a second."""
        entries = [
            LogEntry(self.start + number * step, labels or LABELS, metadata or {}, line)
            for number, line in enumerate(lines)
        ]
        self.store.append(entries)
        assert self.database.flush()

    def get(self, path, **params):
        return self.client.get(f"/loki/api/v1/{path}", query_string=params)

    def lines(self, query, **params):
        answer = self.get("query_range", query=query, **params)
        assert answer.status_code == 200, answer.text
        return [value[1] for stream in answer.json["data"]["result"] for value in stream["values"]]

    def count(self, table="entries"):
        with self.database.read() as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.fixture
def keep(tmp_path):
    """Open a store: `keep(max_age_seconds=60)`; all are closed in the end."""
    started = []

    def start(**limits):
        started.append(Kept(tmp_path / f"{len(started)}.sqlite", **limits))
        return started[-1]

    yield start
    for kept in started:
        kept.database.stop()


def test_the_lines_of_a_trace_are_found_by_its_id(keep):
    kept = keep()
    kept.add("other", "another")
    kept.add("mine", metadata={"trace_id": TRACE, "span_id": "1", "level": "info"})
    (stream,) = kept.get("query_range", query=f'{{service_name="order-service"}} | trace_id="{TRACE}"').json["data"][
        "result"
    ]
    assert stream["stream"] == {**LABELS, "trace_id": TRACE, "span_id": "1", "level": "info"}
    assert stream["values"] == [[str(kept.start), "mine"]]


@pytest.mark.parametrize("space", ["", "  "])
def test_a_trace_id_that_is_in_the_line_only_is_found_after_json(keep, space):
    kept = keep()
    line = f'{space}{{"trace_id":"{TRACE}"}}'
    kept.add(line, '{"trace_id":"other"}')
    assert kept.lines(f'{{service_name="order-service"}} | json | trace_id="{TRACE}"') == [line]
    assert kept.lines(f'{{service_name="order-service"}} | trace_id="{TRACE}"') == []


def test_the_trace_ids_index_is_used(keep):
    kept = keep()
    with kept.database.read() as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT stream, ts, line, metadata FROM entries INDEXED BY entries_trace "
            "WHERE trace = ? AND ts >= ? AND ts < ? ORDER BY ts, id",
            (b"x", 1, 2),
        ).fetchall()
    assert any("entries_trace (trace=? AND ts>? AND ts<?)" in row[3] for row in plan), plan


def test_a_line_that_is_sent_again_is_kept_once(keep):
    kept = keep()
    kept.add("a", "b")
    kept.add("a", "b", "c")
    kept.add("a", metadata={"level": "info"})
    assert sorted(kept.lines('{service_name="order-service"}')) == ["a", "a", "b", "c"]


def test_lines_of_one_time_stay_in_their_order(keep):
    kept = keep()
    kept.add("c", "a", "b", step=0)
    assert kept.lines('{service_name="order-service"}', direction="forward") == ["c", "a", "b"]
    assert kept.lines('{service_name="order-service"}') == ["b", "a", "c"]


def test_streams_are_merged_in_order_of_time_before_the_limit(keep):
    kept = keep()
    kept.add("a0", "a1", "a2")
    kept.add("b0", "b1", "b2", labels={"service_name": "nginx"})
    assert sorted(kept.lines('{service_name=~".+"}', limit=2)) == ["a2", "b2"]
    assert sorted(kept.lines('{service_name=~".+"}', limit=4, direction="forward")) == ["a0", "a1", "b0", "b1"]


def test_what_is_too_old_is_deleted_and_its_stream_with_it(keep):
    kept = keep(max_age_seconds=3600)
    kept.store.append([LogEntry(1, {"service_name": "old"}, {}, "old")])
    kept.add("new")
    eventually(lambda: kept.count() == 1)
    assert kept.get("label/service_name/values", since="30d").json["data"] == ["order-service"]
    assert kept.count("streams") == 1


def test_the_oldest_is_deleted_first(keep):
    kept = keep(max_age_seconds=10**10)
    for start, name in ((300, "a"), (100, "b"), (200, "c")):
        kept.store.append([LogEntry(start + number, {"service_name": name}, {}, str(number)) for number in range(3)])
    kept.database.flush()
    deleted = []

    def delete(connection):
        while count := kept.store.delete_oldest(connection, 202):
            deleted.append((count, kept.store.oldest(connection)))

    kept.database.write(delete)
    kept.database.flush()
    assert deleted == [(3, 200), (2, 202)]


def test_the_metadata_of_a_record_is_what_loki_makes_of_it(keep):
    record = (5, "info", "line", bytes.fromhex(TRACE), bytes(7) + b"1")
    (entry,) = entries_from_otlp(log_request("order-service", [record]))
    assert entry == LogEntry(
        5,
        {"service_name": "order-service", "service_namespace": "shop", "deployment_environment_name": "test"},
        {
            "level": "info",
            "severity_text": "info",
            "severity_number": "9",
            "trace_id": TRACE,
            "span_id": "0000000000000031",
            "observed_timestamp": "5",
        },
        "line",
    )


def test_a_record_from_far_ahead_gets_the_time_at_which_it_came():
    now = time.time_ns()
    times = [now + 23 * 3600 * SECOND, now + 25 * 3600 * SECOND, 2**64 - 1]
    records = [LogRecord(time_unix_nano=at) for at in times]
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])
    kept, *moved = [entry.timestamp_ns for entry in entries_from_otlp(request)]
    assert kept == times[0]
    assert all(abs(at - now) < 10 * SECOND for at in moved)


def test_a_line_that_is_too_long_is_cut(keep):
    kept = keep()
    kept.add("x" * (logs.MAX_LINE + 10))
    (line,) = kept.lines('{service_name="order-service"}')
    assert len(line) == logs.MAX_LINE


@pytest.mark.parametrize("path", ["tail", "patterns", "detected_fields", "drilldown-limits", "rules", "x/y"])
def test_what_is_not_there_is_said_to_be_so(keep, path):
    answer = keep().get(path)
    assert answer.status_code == 404
    assert "is not part of the embedded backend" in answer.text


def test_grafana_finds_out_what_it_talks_to(keep):
    kept = keep()
    assert kept.get("status/buildinfo").json["version"] == "embedded-backend"
    assert kept.client.get("/ready").text == "ready\n"


def test_how_much_there_is_is_estimated(keep):
    kept = keep()
    kept.add(*(["x" * 100] * 5))
    kept.add("x" * 10, labels={"service_name": "nginx"})
    stats = kept.get("index/stats", query='{service_name=~".+"}').json
    assert stats == {"streams": 2, "chunks": 2, "bytes": 510, "entries": 6}
    volume = kept.get("index/volume", query='{service_name=~".+"}').json["data"]["result"]
    assert [(row["metric"], row["value"][1]) for row in volume] == [
        ({"service_name": "order-service"}, "500"),
        ({"service_name": "nginx"}, "10"),
    ]


def test_a_query_that_takes_too_long_is_ended(keep):
    kept = keep(query_seconds=0.05)
    kept.add(*[f"{number} {'x' * 200}" for number in range(20_000)], step=1)
    answer = kept.get("query_range", query='{service_name="order-service"} |~ "y" |~ "z"')
    assert answer.status_code == 504
    assert answer.text.startswith("Request timed out")
    answer = kept.get("query_range", query='{service_name="order-service"} |= "y" |= "z" != "a" != "b" != "c"')
    assert answer.status_code in {200, 504}


def test_too_many_queries_at_once_are_told_so(keep, monkeypatch):
    monkeypatch.setattr(loki, "_WAIT_SECONDS", 0.05)
    kept = keep()
    busy, done = threading.Barrier(loki._PARALLEL + 1), threading.Event()

    def series(self, *args):
        busy.wait(10)
        done.wait(10)
        return []

    monkeypatch.setattr(logs.Reader, "series", series)
    threads = [threading.Thread(target=kept.get, args=("series",)) for _ in range(loki._PARALLEL)]
    for thread in threads:
        thread.start()
    busy.wait(10)
    assert kept.get("series").status_code == 429
    done.set()
    for thread in threads:
        thread.join()


def test_lines_are_taken_while_a_long_query_runs(keep):
    kept = keep(query_seconds=2)
    kept.add(*[f"{number} {'x' * 200}" for number in range(30_000)], step=1)
    query = 'sum(count_over_time({service_name="order-service"} |~ "(x+y)+" [1h]))'
    thread = threading.Thread(target=kept.get, args=("query",), kwargs={"query": " + ".join([query] * 20)})
    thread.start()
    began = time.monotonic()
    kept.add("new", labels={"service_name": "new"})
    assert kept.lines('{service_name="new"}') == ["new"]
    assert time.monotonic() - began < 1.5
    thread.join()


# --- no query, and no parameter, is answered with a 500 ---

PIECES = [
    '{service_name="order-service"}',
    '{service_name=~".+"}',
    "{",
    "}",
    "(",
    ")",
    "[1m]",
    "[5s",
    "[",
    ",",
    "|",
    "|=",
    "!=",
    "|~",
    "!~",
    "=",
    "=~",
    "==",
    ">",
    ">=",
    "<",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    '"a"',
    '"("',
    '"{{.a}}"',
    '"{{"',
    "`a.b[0]`",
    "`(?P<a>x)`",
    "a",
    "trace_id",
    "__error__",
    "1",
    "0",
    "-1",
    "1e308",
    "0.5",
    "5m",
    "1KB",
    "99999999999999999999",
    "json",
    "logfmt",
    "regexp",
    "line_format",
    "label_format",
    "drop",
    "keep",
    "unwrap",
    "by",
    "without",
    "bool",
    "on",
    "ignoring",
    "offset",
    "or",
    "and",
    "unless",
    "pattern",
    "ip",
    "sum",
    "avg",
    "topk",
    "bottomk",
    "sort",
    "count",
    "stddev",
    "rate",
    "count_over_time",
    "bytes_rate",
    "quantile_over_time",
    "absent_over_time",
    "sum_over_time",
    "vector",
    "duration",
    "bytes",
    "group_left",
    "--strict",
    "#",
]
WHOLE = [
    '{service_name="order-service"} | json',
    "| a > 5",
    '| a = "x"',
    "| logfmt",
    "| unwrap a",
    '|= "a"',
    'rate({service_name=~".+"} | json [1m])',
    'sum by (a) (count_over_time({service_name="order-service"} | json | __error__="" [10s]))',
    'sum_over_time({service_name="order-service"} | json | unwrap a | __error__="" [1m])',
    "vector(1)",
    "* 1e308",
    "^ -0.5",
    "% 0",
    "or vector(0)",
    "> bool 0",
    "/ on (a)",
]
LINES = [
    '{"a":1,"b":{"c":"d"}}',
    '{"a":"\\ud800"}',
    '{"a":1e999}',
    '{"a":NaN}',
    'a=1 b="\\x" c',
    "",
    "\x00",
    "[" * 2000,
    '{"a":' * 2000,
    "plain \ufffd \U0001f600",
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    kept = Kept(tmp_path_factory.mktemp("fuzz") / "logs.sqlite")
    kept.add(*LINES)
    kept.add(*LINES, labels={"service_name": "nginx"}, metadata={"trace_id": TRACE, "a": "x"})
    yield kept
    kept.database.stop()


def joined(*parts):
    return st.tuples(*parts).map(" ".join)


def some_of(pieces, least=0, most=4):
    return st.lists(st.sampled_from(pieces), min_size=least, max_size=most).map(" ".join)


queries = st.one_of(
    some_of(PIECES, most=12),
    some_of(WHOLE + PIECES, least=1),
    joined(st.sampled_from(WHOLE[:1]), some_of(WHOLE[1:6])),
    joined(st.sampled_from(WHOLE[6:10]), st.sampled_from(WHOLE[10:]), st.sampled_from([*WHOLE[6:10], ""])),
    st.text(max_size=30),
)
PARAMETERS = ["start", "end", "since", "time", "step", "limit", "direction", "interval", "query", "match[]"]


@hypothesis.settings(max_examples=max(300, EXAMPLES), deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(query=queries, path=st.sampled_from(["query_range", "query"]), by=st.sampled_from(["GET", "POST"]))
def test_no_query_makes_the_server_fail(asked, query, path, by):
    where = {"query_string" if by == "GET" else "data": {"query": query, "step": "10"}}
    answer = asked.client.open(f"/loki/api/v1/{path}", method=by, **where)
    assert answer.status_code in {200, 400}, answer.text
    assert answer.status_code == 200 or answer.text.strip()


@hypothesis.settings(max_examples=max(150, EXAMPLES), deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    params=st.dictionaries(
        st.sampled_from(PARAMETERS),
        st.one_of(
            st.text(max_size=10),
            st.integers().map(str),
            st.floats().map(str),
            st.sampled_from(["1e3", "1e400", "-0", "1d", "0s", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59.9+00:00"]),
        ),
        max_size=5,
    ),
    path=st.sampled_from(["query_range", "query", "labels", "label/a/values", "series", "index/stats", "index/volume"]),
    metric=st.booleans(),
)
def test_no_parameter_makes_the_server_fail(asked, params, path, metric):
    selector = '{service_name="order-service"}'
    params.setdefault("query", f"sum(count_over_time({selector}[1m]))" if metric else selector)
    answer = asked.client.get(f"/loki/api/v1/{path}", query_string=params)
    assert answer.status_code in {200, 400}, answer.text
