"""Processes that come from others, by gunicorn or a fork: their spans come too, each once, and none of the parent's."""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from servicekit.telemetry.exporter import STOP_SECONDS
from tests.fixtures.database import PROJECT
from tests.fixtures.otlp import Collector, decode
from tests.fixtures.services import Client, eventually

APP = "tests.servicekit.forking:create_app()"
PRELOAD = "--preload"


class Connections(Collector):
    """A collector that knows over which connection a span came."""

    def __init__(self):
        self.ports = collections.defaultdict(set)
        super().__init__()

    def _take(self, request, body):
        for span in decode(body):  # before the answer, after which the program may end
            self.ports[span.attributes["pid"]].add(request.client_address[1])
        super()._take(request, body)


@pytest.fixture
def connections():
    collector = Connections()
    yield collector
    collector.stop()


class Asking:
    """A client that asks all the time, on new connections, and keeps who answered and in which trace."""

    def __init__(self, root):
        self._root = root
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = []
        self.failed = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join()

    def since(self, count):
        """The processes that have answered after the first so many answers."""
        return {pid for pid, _ in self.answered[count:]}

    def _run(self):
        while not self._enough.wait(0.01):
            client = Client(self._root)
            try:
                answer = client.get("/pid", headers={"Connection": "close"})
                self.answered.append((answer.json()["pid"], answer.headers["traceresponse"].split("-")[1]))
            except OSError as error:
                self.failed.append(error)
            finally:
                client.session.close()


def _all_came_once(collector, answered):
    """Each answered request left its two spans, and no span came twice."""
    wanted = collections.Counter(trace_id for _, trace_id in answered)
    assert max(wanted.values()) == 1

    def came():
        return collections.Counter(span.trace_id for span in list(collector.spans) if span.trace_id in wanted)

    eventually(lambda: all(came()[trace_id] >= 2 for trace_id in wanted))  # the two may come in two batches
    assert set(came().values()) == {2}
    ids = [span.span_id for span in collector.spans]
    assert len(ids) == len(set(ids))


def _one_instance_a_process(collector):
    pairs = {
        (span.attributes["pid"], span.resource["service.instance.id"]) for span in list(collector.spans)
        if span.name == "work"
    }  # fmt: skip
    assert len(pairs) == len({pid for pid, _ in pairs}) == len({instance for _, instance in pairs})
    return {pid for pid, _ in pairs}


@pytest.mark.parametrize("arguments", ["", PRELOAD, "--workers=3", f"{PRELOAD} --workers=3"])
def test_spans_go_on_in_the_workers_that_come_after_a_reload(start, collector, arguments):
    server = start(APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, GUNICORN_CMD_ARGS=arguments)
    eventually(server.is_up, 20)
    with Asking(server.client.root) as asking:
        eventually(lambda: len(asking.answered) >= 20)
        before = asking.since(0)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not asking.since(-20) & before, 20)
    assert server.stop() == 0
    assert not asking.failed
    _all_came_once(collector, asking.answered)
    assert _one_instance_a_process(collector) == asking.since(0)


@pytest.mark.parametrize("arguments", ["", PRELOAD])
def test_spans_go_on_in_the_worker_that_replaces_a_killed_one(start, collector, arguments):
    server = start(APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, GUNICORN_CMD_ARGS=arguments)
    eventually(server.is_up, 20)
    answered = []
    for _ in range(3):
        with Asking(server.client.root) as asking:
            eventually(lambda: len(asking.answered) >= 10)
        answered += asking.answered
        _all_came_once(collector, answered)  # what still waits when a process is killed is lost
        (killed,) = asking.since(0)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: _pid_of(server) not in {None, killed}, 20)  # noqa: B023
    assert server.stop() == 0
    assert len({pid for pid, _ in answered}) == 3
    assert len(_one_instance_a_process(collector)) >= 3


def _pid_of(server):
    client = Client(server.client.root)
    with contextlib.closing(client.session), contextlib.suppress(OSError):
        return client.get("/pid").json()["pid"]
    return None


def test_a_request_that_forks_is_one_span_and_what_both_do_in_it_comes_too(start, collector):
    server = start(APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    eventually(server.is_up, 20)
    for _ in range(3):
        answer = server.client.get("/fork")
        assert answer.json() == {"ended": 0}
        trace_id = answer.headers["traceresponse"].split("-")[1]
        spans = collector.trace(trace_id, 3)
        assert sorted(span.name for span in spans) == ["GET /fork", "of the child", "of the parent"]
        (request,) = [span for span in spans if span.name == "GET /fork"]
        assert {span.parent_id for span in spans} == {request.span_id, ""}
        assert len({span.resource["service.instance.id"] for span in spans}) == 2
    assert server.stop() == 0
    assert len(collector.named("GET /fork")) == 3


@pytest.mark.parametrize("arguments", ["", PRELOAD])
def test_what_waits_when_it_is_told_to_stop_is_sent(start, collector, arguments):
    server = _with_spans_that_wait(start, collector, arguments)
    assert collector.requests == 0
    assert server.stop() == 0
    assert collections.Counter(span.name for span in collector.spans) == {"GET /pid": 300, "work": 300}
    assert len({span.span_id for span in collector.spans}) == 600
    assert not any(event["event"] == "telemetry.export_failed" for event in server.events)


@pytest.mark.parametrize("arguments", ["", PRELOAD])
def test_what_a_backend_that_hangs_does_not_take_is_told_when_it_stops(start, collector, arguments):
    collector.frozen.set()
    server = _with_spans_that_wait(start, collector, arguments)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < STOP_SECONDS + 5  # a busy machine may need some of it
    told = [(e["error_type"], e["spans_lost"]) for e in server.events if e["event"] == "telemetry.export_failed"]
    assert told == [("shutdown", 600)]


def _with_spans_that_wait(start, collector, arguments):
    env = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2048"}
    server = start(APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, GUNICORN_CMD_ARGS=arguments, **env)
    eventually(server.is_up, 20)
    for _ in range(300):
        assert server.client.get("/pid").status_code == 200
    return server


def test_a_worker_that_is_told_to_stop_while_it_starts_ends_as_well(start):
    server = start(APP, START_SECONDS="1")
    eventually(lambda: "app.starting" in server.output, 20)
    assert server.stop() == 0
    assert "Exception in worker process" not in server.output


def test_there_is_one_worker_also_where_the_environment_asks_for_more(start):
    server = start(APP, WEB_CONCURRENCY="3")
    eventually(server.is_up, 20)
    assert server.stop() == 0
    assert server.output.count("Booting worker") == 1


@pytest.fixture
def fork():
    """Run the program that forks: `fork(endpoint)`; a line to it is a fork, and it answers with how the child ended."""
    started = []

    def run(endpoint, **env):
        paths = os.pathsep.join(map(str, (PROJECT, PROJECT / "services")))
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.servicekit.forking"],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": paths, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(program)
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate()


def _child(program, name):
    program.stdin.write(f"{name}\n")
    program.stdin.flush()


def _ended(program):
    """The lines of the program, once it has ended."""
    output, _ = program.communicate(timeout=20)
    return [json.loads(line) for line in output.splitlines()]


def test_what_waits_at_a_fork_is_sent_by_the_parent_alone(fork, collector):
    program = fork(collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")
    _child(program, "child")
    (ended,) = _ended(program)
    assert ended["status"] == 0
    names = collections.Counter((span.name, span.attributes["pid"]) for span in collector.spans)
    assert names == {("before", program.pid): 3, ("parent", program.pid): 3, ("child", ended["pid"]): 3}


def test_a_span_that_a_child_begins_with_an_earlier_time_comes_once(fork, collector):
    program = fork(collector.endpoint)
    _child(program, "backdated")
    (ended,) = _ended(program)
    assert ended["status"] == 0
    (span,) = collector.named("backdated")
    assert (span.attributes["pid"], span.start_ns) == (ended["pid"], 1)


@pytest.mark.parametrize("proxied", [False, True])
def test_a_child_has_connections_of_its_own(fork, connections, proxied):
    way = {"HTTP_PROXY": connections.endpoint, "http_proxy": connections.endpoint, "NO_PROXY": "", "no_proxy": ""}
    endpoint = "http://collector.example:4318" if proxied else connections.endpoint
    program = fork(endpoint, OTEL_BSP_SCHEDULE_DELAY="20", **(way if proxied else {}))
    eventually(lambda: len(connections.spans) == 3)  # so the parent has a connection, which it keeps
    for name in ("first", "second"):
        _child(program, name)
        assert json.loads(program.stdout.readline())["status"] == 0
    children = connections.ports.keys() - {program.pid}
    assert _ended(program) == []
    assert len(children) == 2
    assert len(connections.ports[program.pid]) == 1
    assert len(set().union(*connections.ports.values())) == 3
    assert len(connections.spans) == 3 + 2 * (3 + 3)


def test_a_child_sends_its_spans_while_the_parents_export_hangs(fork, connections):
    connections.frozen.set()
    program = fork(connections.endpoint, OTEL_BSP_SCHEDULE_DELAY="20")
    eventually(lambda: connections.requests)  # the parent holds its lock of the queue, until it gets an answer
    connections.frozen.clear()
    _child(program, "idle")
    assert json.loads(program.stdout.readline())["status"] == 0
    _child(program, "child")
    ended = json.loads(program.stdout.readline())
    assert ended["status"] == 0
    assert [span.attributes["pid"] for span in connections.named("child")] == [ended["pid"]] * 3
    lines = _ended(program)
    told = [(line["event"], line["error_type"], line["spans_lost"]) for line in lines]
    assert told == [("telemetry.export_failed", "shutdown", 9)]  # by the parent: the children have lost nothing
