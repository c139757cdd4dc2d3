"""The real server: what it logs, how it ends, and what it says when it cannot start."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from gunicorn.workers.gthread import PollableMethodQueue

from servicekit.process.stopping import StoppingWorker
from tests.fixtures.database import PROJECT
from tests.fixtures.otlp import Collector
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually, quickest
from tests.servicekit.conftest import GUNICORN, SAMPLE, Server

PRODUCT = "product_service.app:create_app()"


def test_every_line_of_its_log_is_an_object_of_this_service(start):
    server = start(PRODUCT)
    eventually(server.is_up, 20)
    server.client.get("/products/1")
    server.client.get("/nowhere")
    assert server.stop() == 0
    events = server.events
    assert {event["service"] for event in events} == {"product-service"}
    assert all(event["timestamp"].endswith("Z") for event in events)
    requests_logged = [(e["http_route"], e["status"]) for e in events if e["event"] == "request.completed"]
    assert requests_logged == [("/products/{product_id}", 200), ("unmatched", 404)]
    assert any(e.get("logger") == "gunicorn.error" and "Listening" in e["message"] for e in events)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /canary HTTP/9.9\r\n\r\n",
        b"GET /canary\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"canary\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\ncanary header: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Token: can\x00ary\r\n\r\n",
        b"GET /?canary=" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Token: canary" + b"x" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: canary\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\ncanary",
    ],
)
def test_what_is_no_http_is_refused_and_not_quoted_in_the_log(sample, request_bytes):
    host, port = sample.client.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request_bytes)
        answer = connection.recv(4096)
    assert answer.split()[1][:1] == b"4"
    assert eventually(sample.is_up)
    assert "canary" not in sample.output.lower()


def test_who_leaves_within_the_headers_is_not_quoted_in_the_log(sample):
    host, port = sample.client.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /?q=canary HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer canary")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""
    eventually(lambda: "premature client disconnection" in sample.output)
    sample.client.get("/canary")
    eventually(lambda: any(event.get("status") == 404 for event in sample.events))
    assert "canary" not in sample.output.lower()


@pytest.mark.parametrize(
    "target",
    [
        "//[canary",
        "http://[canary/x",
        "/%ff%fe",
        "/notes/7;canary",
        "/notes/7?%%%",
        "*",
        "/notes//7",
        "/?" + "a" * 4000,
    ],
)
def test_no_target_and_no_host_breaks_a_traced_request_or_gets_into_its_span(traced, collector_of_module, target):
    address = ("127.0.0.1", int(traced.client.root.rpartition(":")[2]))
    for host in ("x", "[canary", "canary:port", "x/healthz?", "", "\xff"):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
            answer = connection.recv(65536).decode()
        assert answer.split()[1] in {"200", "400", "404"}, answer
    for _ in range(8):  # as many threads as may have kept something
        response = traced.client.get("/notes/9")
        trace_id = response.headers["traceresponse"].split("-")[1]
        (span,) = collector_of_module.trace(trace_id, 1)
        assert (span.kind, span.parent_id) == ("SERVER", "")
    assert b"canary" not in b"".join(collector_of_module.bodies)
    assert "canary" not in traced.output


@pytest.fixture(scope="module")
def collector_of_module():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector_of_module):
    """A traced sample with few threads, so that each is used again soon."""
    env = {"PORT": str(free_port()), "OTEL_EXPORTER_OTLP_ENDPOINT": collector_of_module.endpoint}
    server = Server(SAMPLE, tmp_path_factory.mktemp("traced") / "log", THREADS="2", QUEUE_LENGTH="0", **env)
    server.client = Client(f"http://127.0.0.1:{env['PORT']}")
    eventually(server.is_up, 20)
    yield server
    server.client.session.close()
    server.stop()


def test_the_last_spans_are_sent_before_the_end(start, collector):
    server = start(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    eventually(server.is_up, 20)
    for _ in range(20):
        server.client.get("/notes/7")
    assert server.stop() == 0
    assert len(collector.named("GET /notes/{note_id}")) == 20
    assert collector.named("goodbye")  # made as the worker ended
    assert len({span.resource["service.instance.id"] for span in collector.spans}) == 1


@pytest.mark.parametrize(
    ("middleware", "paths"),
    [("proxy", ["/notes/7"]), ("function", ["/notes/7"]), ("dispatcher", ["/notes/7", "/second/notes/7"])],
)
@pytest.mark.parametrize("arguments", ["", "--preload"])
def test_with_middleware_around_the_apps_each_has_its_tasks_its_spans_and_its_refusals(
    start, collector, middleware, paths, arguments
):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "GUNICORN_CMD_ARGS": arguments}
    server = start(f'tests.servicekit.sample:create_app_behind("{middleware}")', **env)
    eventually(server.is_up, 20)
    assert [server.client.get(path).status_code for path in paths] == [200] * len(paths)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"canary\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"traceresponse: 00-" in answer
    assert server.stop() == 0
    assert len(collector.named("GET /notes/{note_id}")) == len(paths)
    assert len(collector.named("HTTP")) == 1  # what was refused
    assert len(collector.named("goodbye")) == len(paths)  # the last thing that each app's task does


def test_an_application_that_is_none_of_servicekits_does_not_start_and_says_why(start):
    server = start("tests.servicekit.sample:create_app_of_others()")
    eventually(lambda: server.process.poll() is not None, 20)
    assert "No app here is one of servicekit's" in server.output


@pytest.mark.parametrize("backend", ["dead", "frozen", "failing"])
def test_the_end_does_not_wait_for_a_backend_that_takes_nothing(start, start_collector, backend):
    if backend == "dead":
        endpoint = f"http://127.0.0.1:{free_port()}"
    else:
        collector = start_collector()
        endpoint = collector.endpoint
        if backend == "frozen":
            collector.frozen.set()
        else:
            collector.status = 503
    server = start(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    eventually(server.is_up, 20)
    for _ in range(5):
        assert server.client.get("/notes/7").status_code == 200
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10  # 3 s of that without any backend, on a busy machine
    assert server.events


def test_what_a_library_prints_and_what_kills_a_thread_are_log_lines(start):
    server = start(SAMPLE)
    eventually(server.is_up, 20)
    server.client.get("/prints")
    printed = eventually(lambda: [e for e in server.events if e["event"] == "library.printed"])
    assert [(e["message"], e["stream"], e["level"]) for e in printed] == [
        ("to stdout", "stdout", "info"),
        ("to stderr", "stderr", "warning"),
    ]
    assert all(event["trace_id"] for event in printed)
    (crash,) = eventually(lambda: [e for e in server.events if e["event"] == "thread.crashed"])
    assert (crash["exception_type"], crash["thread"]) == ("builtins.RuntimeError", "doomed")
    assert "canary" not in server.output


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    port = free_port()
    server = Server(SAMPLE, tmp_path_factory.mktemp("sample") / "log", PORT=str(port), LOG_LEVEL="debug")
    server.client = Client(f"http://127.0.0.1:{port}")
    eventually(server.is_up, 20)
    yield server
    server.stop()


def test_a_chunked_body_over_the_limit_is_413_here_too(sample):
    """Gunicorn and the tests' server read chunks differently."""
    body = iter([b'{"title": "a"}', *[b" " * 16384] * 4])
    answer = sample.client.post("/notes/", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_sigterm_finishes_the_request_in_flight_and_ends(start, tmp_path):
    server = start(SAMPLE, MARKS_DIR=str(tmp_path))
    eventually(server.is_up, 20)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.client.get, "/slow")
        eventually((tmp_path / "begun").exists)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Handling signal: term" in server.output)
        (tmp_path / "go").touch()
        assert answer.result().json() == {"finished": True}
    assert server.process.wait(10) == 0


def test_while_it_finishes_new_connections_are_refused_not_left_waiting(start, tmp_path):
    """A gateway sends a refused one to another replica. One that is taken in and then dropped it cannot."""
    server = start(SAMPLE, MARKS_DIR=str(tmp_path))
    eventually(server.is_up, 20)
    address = ("127.0.0.1", int(server.client.root.rpartition(":")[2]))

    def refused():
        try:
            socket.create_connection(address, timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.client.get, "/slow")
        eventually((tmp_path / "begun").exists)
        server.process.send_signal(signal.SIGTERM)
        eventually(refused, 5)
        assert not answer.done()
        (tmp_path / "go").touch()
        assert answer.result().json() == {"finished": True}


def test_no_connection_that_comes_while_it_ends_is_reset(start, tmp_path):
    server = start(SAMPLE, MARKS_DIR=str(tmp_path))
    eventually(server.is_up, 20)

    def outcome(_number):
        try:
            with socket.create_connection(server.address, timeout=10) as connection:
                connection.sendall(b"GET /notes/7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return connection.recv(100).split(b" ")[1]
        except ConnectionRefusedError:
            return "refused"

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        slow = pool.submit(server.client.get, "/slow")
        eventually((tmp_path / "begun").exists)
        came = [pool.submit(outcome, number) for number in range(100)]
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: outcome(0) == "refused", 5)
        came += [pool.submit(outcome, number) for number in range(100)]
        (tmp_path / "go").touch()
        assert slow.result().status_code == 200
        assert {one.result() for one in came} <= {b"200", "refused"}
    assert server.process.wait(10) == 0


def test_the_images_command_runs_the_service_that_the_image_is_made_for(start):
    text = (PROJECT / "Dockerfile").read_text().rpartition("AS service\n")[2].replace("\\\n", " ")
    command = json.loads(re.search(r"^CMD (.+)$", text, re.MULTILINE)[1])
    settings = dict(
        re.findall(r"(\w+)=(\S+)", re.search(r"^ENV (.+)$", text, re.MULTILINE)[1].replace("$SERVICE", "product"))
    )
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = start(command=command, **{name: settings[name] for name in ("SERVICE", "OTEL_SERVICE_NAME")}, **path)
    eventually(server.is_up, 20)
    assert server.client.get("/products/1").status_code == 200
    assert server.stop() == 0  # it hears SIGTERM: no shell is in between
    assert {event["service"] for event in server.events} == {"product-service"}


def test_without_an_application_none_is_made_up(start):
    server = start(None, SERVICE="product")
    assert server.process.wait(20) != 0
    assert "No application" in server.output


@pytest.mark.parametrize(
    ("arguments", "env", "named"),
    [
        (["product_service.app:create_app()"], {}, "product-service"),
        (["tests.servicekit.sample:create_app()"], {"SERVICE": "product"}, "tests"),
        (["--name", "usher", "tests.servicekit.sample:create_app()"], {}, "usher"),
        (["--name", "usher", "tests.servicekit.sample:create_app()"], {"OTEL_SERVICE_NAME": "host"}, "host"),
    ],
)
def test_gunicorns_own_lines_have_the_name_that_gunicorn_has(start, arguments, env, named):
    server = start(command=[*GUNICORN, *arguments], **env)
    eventually(server.is_up, 20)
    [first] = [event for event in server.events if "Starting gunicorn" in event.get("message", "")]
    assert first["service"] == named


def test_the_health_check_tells_a_service_from_none(start):
    server = start(PRODUCT)
    eventually(server.is_up, 20)
    check = [sys.executable, "-S", "-m", "servicekit.process.healthcheck"]
    for port, status in ((server.client.root.rpartition(":")[2], 0), (str(free_port()), 1)):
        environment = {**os.environ, "PYTHONPATH": str(PROJECT / "services"), "PORT": port}
        assert subprocess.run(check, env=environment, check=False).returncode == status
        environment["PORT"] = "none"
        for path, other in (("/metrics", status), ("/nothing", 1)):
            assert subprocess.run([*check, port, path], env=environment, check=False).returncode == other


def test_a_request_that_does_not_finish_holds_the_end_up_no_longer_than_the_limit(start, tmp_path):
    server = start(SAMPLE, MARKS_DIR=str(tmp_path), GRACEFUL_TIMEOUT_SECONDS="1")
    eventually(server.is_up, 20)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.client.get, "/slow")
        eventually((tmp_path / "begun").exists)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(6)
        assert isinstance(answer.exception(), requests.ConnectionError)


@pytest.mark.parametrize(
    ("app", "env", "variable"),
    [
        (PRODUCT, {"PORT": "eighty"}, "PORT"),
        (PRODUCT, {"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        (PRODUCT, {"CATALOGUE_FILE": "/nowhere/catalogue.json"}, "/nowhere/catalogue.json"),
    ],
)
def test_what_it_cannot_start_with_is_named_and_it_ends(start, app, env, variable):
    server = start(app, **env)
    assert server.process.wait(20) not in {0, None}
    assert variable in server.output
    assert server.events  # all of it is log lines
    assert server.output.count("Booting worker") <= 1


def test_what_it_cannot_take_on_is_refused_at_once_and_probes_are_answered_all_the_same(start, tmp_path):
    server = start(SAMPLE, MARKS_DIR=str(tmp_path), THREADS="1", QUEUE_LENGTH="1", QUEUE_WAIT_SECONDS="2")
    eventually(server.is_up, 20)
    root = server.client.root
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        working = pool.submit(requests.get, f"{root}/slow", timeout=20)
        eventually((tmp_path / "begun").exists)
        others = [pool.submit(requests.get, f"{root}/notes/", timeout=20) for _ in range(2)]
        # One of the two finds the queue full, the other waits its 2 s.
        done, waiting = concurrent.futures.wait(others, timeout=1)
        assert [other.result().status_code for other in done] == [503]
        assert quickest(lambda: server.client.get("/healthz")) < 0.5
        assert [other.result().status_code for other in waiting] == [503]
        (tmp_path / "go").touch()
        assert working.result().status_code == 200
    refused = done.pop().result()
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["type"] == "urn:sample:problem:overloaded"
    assert server.client.metric("http_server_requests_rejected_total") == 2
    assert server.client.get("/notes/").status_code == 200


def _connections(server, count):
    """So many connections that are kept."""
    sessions = [Client(server.client.root) for _ in range(count)]
    for session in sessions:
        session.session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1))
    return sessions


def test_a_thread_stays_with_its_connection(start):
    server = start(SAMPLE)
    eventually(server.is_up, 20)
    turns = _connections(server, 3)
    in_turn = [[one.get("/thread").json()["thread"] for one in turns] for _ in range(5)]
    assert in_turn == [in_turn[0]] * 5
    assert len(set(in_turn[0])) == 3


def test_more_connections_than_threads_are_all_served(start):
    server = start(SAMPLE, THREADS="1", QUEUE_LENGTH="0")
    eventually(server.is_up, 20)
    idle = _connections(server, 150)
    for _ in range(2):
        for one in idle:
            answer = one.get("/notes/7")
            assert answer.status_code == 200
            assert answer.elapsed.total_seconds() < 3
    assert server.client.metric("http_server_requests_rejected_total") == 0
    for one in idle:
        one.session.close()


def test_idle_connections_leave_threads_for_requests_and_probes(start, tmp_path):
    server = start(SAMPLE, MARKS_DIR=str(tmp_path), THREADS="2", QUEUE_LENGTH="4", QUEUE_WAIT_SECONDS="10")
    eventually(server.is_up, 20)
    idle = _connections(server, 6)
    assert [one.get("/notes/7").status_code for one in idle] == [200] * 6
    busy = _connections(server, 6)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        slow = [pool.submit(one.get, "/slow") for one in busy]
        eventually(lambda: server.client.metric("http_server_active_requests") >= 6 + 1)
        assert quickest(lambda: server.client.get("/healthz")) < 1
        (tmp_path / "go").touch()
        assert {one.result().status_code for one in slow} == {200}


def test_an_order_to_end_at_once_waits_for_no_lock_of_the_threads_pool():
    # The main thread may hold it when the signal comes; then it would wait for itself.
    worker = StoppingWorker.__new__(StoppingWorker)
    worker.tpool = concurrent.futures.ThreadPoolExecutor(1)
    worker.method_queue = PollableMethodQueue()
    worker.method_queue.init()
    told = threading.Thread(target=worker.handle_quit, args=(signal.SIGQUIT, None), daemon=True)
    with worker.tpool._shutdown_lock:
        told.start()
        told.join(5)
        assert not told.is_alive()
    assert worker.alive is False
    worker.method_queue.close()


@pytest.mark.parametrize(
    ("order", "seconds"), [(signal.SIGTERM, 6), (signal.SIGINT, 4), (signal.SIGQUIT, 4)], ids=["TERM", "INT", "QUIT"]
)
def test_an_idle_connection_holds_up_no_end(start, order, seconds):
    server = start(SAMPLE)
    eventually(server.is_up, 20)
    with socket.create_connection(("127.0.0.1", int(server.client.root.rpartition(":")[2])), timeout=10) as connection:
        assert _asked(connection).startswith(b"HTTP/1.1 200")
        server.process.send_signal(order)
        assert server.process.wait(seconds) == 0
        assert connection.recv(65536) == b""


def test_a_request_on_a_kept_connection_is_served_while_it_ends(start):
    """With as many threads as there may be: gunicorn keeps none beyond its bound on connections."""
    server = start(SAMPLE, THREADS="256", QUEUE_LENGTH="1000")
    eventually(server.is_up, 20)
    with socket.create_connection(("127.0.0.1", int(server.client.root.rpartition(":")[2])), timeout=10) as connection:
        assert b"Connection: keep-alive" in _asked(connection)
        server.process.terminate()
        # Until the signal has come from the master to the worker, which says that it is about to close.
        eventually(lambda: b"Connection: close" in _asked(connection))
    assert server.process.wait(6) == 0


def _asked(connection):
    """The answer to a request on this connection, which is a good one."""
    connection.sendall(b"GET /notes/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b'{"id":7}\n'):
        got = connection.recv(65536)
        assert got, answer
        answer += got
    assert answer.startswith(b"HTTP/1.1 200")
    return answer
