"""gateway-telemetry as a process: started, fed, restarted, killed, without a backend."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from observability.gateway.settings import GatewaySettings
from tests.fixtures.gateway_telemetry import PROJECT, access_line, now
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

COUNT = "http_server_request_duration_seconds_count"
SOON = 5  # seconds for what takes one, or two while a backend hangs, on a machine that has nothing else to do


@pytest.fixture
def log(tmp_path):
    """The access log; `log(line, ...)` adds lines."""

    def append(*lines):
        with append.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    append.path = tmp_path / "nginx.log"
    return append


def test_a_line_is_soon_a_span_and_a_metric(start_telemetry, collector, log):
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    written = time.monotonic()
    log(access_line(timestamp=now()))
    span = collector.one("POST /orders/")
    assert time.monotonic() - written < SOON
    assert span.resource["service.name"] == "nginx"
    assert span.resource["service.namespace"] == "shop"
    assert span.resource["deployment.environment.name"] == "local"
    assert telemetry.metric(COUNT, http_route="/orders/") == 1
    assert 0 <= telemetry.metric("gateway_log_delay_seconds") < SOON
    assert telemetry.metric("otel_sdk_exporter_span_exported_total", error_type="") == 1
    openmetrics = telemetry.exposition()
    assert f'trace_id="{span.trace_id}"' in openmetrics
    assert openmetrics.endswith("# EOF\n")


@pytest.mark.parametrize("tracing", ["module", "off"])
def test_where_others_make_the_span_it_makes_metrics_only(start_telemetry, collector, log, tracing):
    telemetry = start_telemetry(
        ACCESS_LOG_FILE=str(log.path), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, GATEWAY_TRACING=tracing
    )
    log(access_line())
    eventually(telemetry.requests)
    assert collector.settled() == []


def test_after_a_restart_nothing_is_missing_and_nothing_comes_twice(start_telemetry, collector, log):
    settings = {"ACCESS_LOG_FILE": str(log.path), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    log(access_line(span_id="a" * 16))
    first = start_telemetry(**settings)
    eventually(first.requests)
    log(access_line(span_id="b" * 16))
    assert first.stop() < SOON
    log(access_line(span_id="c" * 16))
    second = start_telemetry(**settings)
    eventually(second.requests)
    assert sorted(span.span_id[0] for span in collector.settled()) == ["a", "b", "c"]
    assert log.path.with_name("nginx.log.position").exists()


def test_killed_it_loses_no_line(start_telemetry, log):
    first = start_telemetry(ACCESS_LOG_FILE=str(log.path))
    log(access_line())
    eventually(first.requests)
    eventually(log.path.with_name("nginx.log.position").exists)
    first.stop(signal.SIGKILL)
    log(access_line(), access_line())
    second = start_telemetry(ACCESS_LOG_FILE=str(log.path))
    eventually(lambda: second.requests() >= 2)


@pytest.mark.parametrize("trouble", ["dead", "frozen", "500"])
def test_a_backend_in_trouble_costs_the_metrics_nothing_and_no_time_at_the_end(
    start_telemetry, start_collector, log, trouble
):
    collector = start_collector()
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    if trouble == "dead":
        collector.stop()
    elif trouble == "frozen":
        collector.frozen.set()
    else:
        collector.status = 500
    log(*(access_line() for _ in range(5_000)))
    eventually(lambda: telemetry.requests() == 5_000, 20)
    lost = "timeout" if trouble == "frozen" else "unavailable"
    eventually(lambda: telemetry.metric("otel_sdk_exporter_span_exported_total", error_type=lost) > 0, 20)
    assert telemetry.stop() < SOON


def test_a_backlog_is_read_no_faster_than_its_spans_are_sent_and_in_little_memory(start_telemetry, collector, log):
    log(*(access_line(span_id=f"{number:016x}") for number in range(1, 6_001)))
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    eventually(lambda: telemetry.requests() == 6_000, 60)
    # By their ids: a batch may come twice, where its answer was lost.
    eventually(lambda: len({span.span_id for span in list(collector.spans)}) == 6_000, 30, pause=0.2)
    assert telemetry.metric("otel_sdk_processor_span_processed_total", error_type="queue_full") == 0
    assert psutil.Process(telemetry.process.pid).memory_info().rss < 110 * 1024 * 1024


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_sends_what_it_has_and_logs_as_the_services_do(start_telemetry, collector, log, order):
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    log(access_line())
    assert telemetry.stop(order) < SOON
    assert telemetry.process.returncode == 0
    collector.one("POST /orders/")
    assert [line["event"] for line in telemetry.logged()] == ["server.started", "server.stopped"]
    assert {line["service"] for line in telemetry.logged()} == {"gateway-telemetry"}


def test_a_log_that_cannot_be_read_is_ill_health(start_telemetry, log, tmp_path):
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path))
    log.path.mkdir()
    eventually(lambda: telemetry.http.get("/healthz").status_code == 503)
    log.path.rmdir()
    eventually(lambda: telemetry.http.get("/healthz").status_code == 200)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "ACCESS_LOG_FILE"),
        ({"ACCESS_LOG_FILE": "/x", "ACCESS_LOG_OTLP_PORT": "4319"}, "ACCESS_LOG_OTLP_PORT"),
        ({"ACCESS_LOG_FILE": "/x", "GATEWAY_TRACING": "jaeger"}, "GATEWAY_TRACING"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_name(settings, says):
    done = run(settings)
    assert (done.returncode, done.stderr) == (2, "")
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (line["event"], line["service"]) == ("start.failed", "gateway-telemetry")
    assert says in line["reason"]


def test_opentelemetrys_settings_that_cannot_be_are_told_and_it_starts(start_telemetry, log):
    bad = {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}
    telemetry = start_telemetry(ACCESS_LOG_FILE=str(log.path), **bad)
    eventually(lambda: telemetry.http.get("/healthz").status_code == 200)
    ignored = [line["variable"] for line in telemetry.logged() if line["event"] == "telemetry.setting_ignored"]
    assert ignored == list(bad)


def test_what_is_printed_and_what_ends_it_are_log_lines():
    """The crash is a bug in its settings' class, the print one of a library's."""
    bug = "from observability.gateway import settings; settings.GatewaySettings = lambda: print('odd') or 1 / 0"
    start = "import runpy; runpy.run_module('observability.gateway', run_name='__main__')"
    done = run({}, "-c", f"{bug}; {start}")
    assert (done.returncode, done.stderr) == (1, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["library.printed", "process.crashed"]


def test_a_port_in_use_is_said_in_a_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        done = run({"ACCESS_LOG_FILE": str(tmp_path / "x"), "PORT": str(taken.getsockname()[1])})
    assert done.returncode == 1
    assert "listen.failed" in done.stdout
    assert "Address already in use" in done.stdout


def run(settings, *arguments):
    return subprocess.run(
        [sys.executable, *(arguments or ("-m", "observability.gateway"))],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "services", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_readme_documents_every_setting():
    readme = (Path(PROJECT) / "observability/gateway/README.md").read_text()
    for name, field in GatewaySettings.model_fields.items():
        default = "" if field.is_required() or field.default is None else field.default
        assert f"| `{name.upper()}` | {default} |" in readme, name
