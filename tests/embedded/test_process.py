"""The process: how it starts, says what is wrong, and stops with everything written that it accepted."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from observability.embedded.settings import BackendSettings
from tests.conformance.payloads import order
from tests.fixtures.embedded import PROJECT, EmbeddedBackend
from tests.fixtures.services import eventually


def run(environment, *arguments):
    """Run it to its end; what it said."""
    return subprocess.run(
        [sys.executable, "-m", "observability.embedded", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_lists_every_setting(tmp_path):
    done = run(EmbeddedBackend(tmp_path).environment, "--help")
    assert done.returncode == 0
    for name in BackendSettings.model_fields:
        assert name.upper() in done.stdout


MISTAKES = {
    "port": ({"OTLP_PORT": "99999"}, "OTLP_PORT"),
    "retention": ({"RETENTION_HOURS": "-1"}, "RETENTION_HOURS"),
    "size": ({"MAX_DATABASE_MB": "much"}, "MAX_DATABASE_MB"),
    "folder": ({"EMBEDDED_DATABASE": "/no/such/folder/db"}, "EMBEDDED_DATABASE"),
}


@pytest.mark.parametrize(("environment", "word"), MISTAKES.values(), ids=MISTAKES)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path, environment, word):
    done = run({**EmbeddedBackend(tmp_path).environment, **environment})
    assert done.returncode == 1
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (line["event"], word in line["reason"]) == ("start.failed", True)


@pytest.mark.parametrize("port", ["otlp_port", "jaeger_port", "loki_port"])
def test_a_port_in_use_is_one_line_that_names_it(tmp_path, port):
    backend = EmbeddedBackend(tmp_path)
    with socket.create_server(("127.0.0.1", getattr(backend, port))):
        done = run(backend.environment)
    assert done.returncode == 1
    assert port.upper() in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_in_use_is_one_line_that_names_it(start_embedded, tmp_path):
    first = start_embedded()
    other = {**EmbeddedBackend(tmp_path).environment, "EMBEDDED_DATABASE": str(first.database)}
    done = run(other)
    assert done.returncode == 1
    assert str(first.database) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_its_log_is_json_lines_of_its_own_service(start_embedded):
    backend = start_embedded()
    assert backend.stop() == 0
    lines = [json.loads(line) for line in backend.log.splitlines()]
    assert [line["event"] for line in lines] == ["backend.started", "backend.stopped"]
    assert {line["service"] for line in lines} == {"embedded-backend"}


def test_it_stops_within_two_seconds_under_load_and_has_written_what_it_accepted(start_embedded, tmp_path):
    backend = start_embedded()
    accepted, going = [], True

    def keep_sending():
        with requests.Session() as session, contextlib.suppress(requests.RequestException):
            while going:
                trace = order()
                body = trace.requests()[1].SerializeToString()
                url = f"{backend.otlp.root}/v1/traces"
                headers = {"Content-Type": "application/x-protobuf"}
                if session.post(url, data=body, headers=headers, timeout=5).status_code == 200:
                    accepted.append(trace)

    senders = [threading.Thread(target=keep_sending) for _ in range(4)]
    for sender in senders:
        sender.start()
    eventually(lambda: len(accepted) > 50)
    began = time.monotonic()
    backend.process.send_signal(signal.SIGTERM)
    assert backend.process.wait(15) == 0
    took = time.monotonic() - began
    going = False
    for sender in senders:
        sender.join()
    assert took < 2
    backend.start()
    missing = [trace.hex for trace in accepted if backend.jaeger.get(f"/api/traces/{trace.hex}").status_code != 200]
    assert missing == []


def test_what_was_written_survives_a_kill(start_embedded):
    backend = start_embedded()
    trace = order()
    for request in trace.requests():
        assert backend.otlp.send("traces", request).status_code == 200
    path = f"/api/traces/{trace.hex}"
    before = eventually(lambda: backend.jaeger.get(path).json()["data"])
    eventually(lambda: backend.otlp.metric("embedded_spans_stored_total") == len(trace.spans))
    before = backend.jaeger.get(path).json()
    backend.stop(signal.SIGKILL)
    backend.start()
    assert backend.jaeger.get(path).json() == before


def test_a_slow_sender_keeps_no_other_from_sending(embedded):
    slow = [socket.create_connection(("127.0.0.1", embedded.otlp_port)) for _ in range(20)]
    for one in slow:
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    began = time.monotonic()
    assert embedded.otlp.send("traces", order().requests()[0]).status_code == 200
    assert time.monotonic() - began < 2
    for one in slow:
        one.close()


def test_many_connections_that_stay_open_are_served(embedded):
    sessions = [requests.Session() for _ in range(50)]
    assert all(session.get(f"{embedded.otlp.root}/ready", timeout=5).status_code == 200 for session in sessions * 2)
    for session in sessions:
        session.close()
