"""What a web page may do with the backends that have flags for it, run with the flags of the overlay."""

import contextlib
import json
import subprocess
import time

import pytest
import requests
import yaml

from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually
from tests.observability.conftest import OBSERVABILITY

OVERLAY = yaml.safe_load((OBSERVABILITY.parent / "docker-compose.observability.yml").read_text())["services"]
ORIGINS = ["https://evil.example", "http://localhost:3000", "null"]
RECEIVER = "/api/v1/otlp/v1/metrics"


@pytest.fixture(scope="module")
def prometheus(program, tmp_path_factory):
    """Prometheus with the overlay's flags for the web: its address."""
    flags = [flag for flag in OVERLAY["prometheus"]["command"] if flag.startswith("--web.")]
    folder, url = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}"
    (folder / "empty.yml").touch()
    command = [program("prometheus"), *flags, "--config.file=empty.yml", f"--web.listen-address={url}"]

    def is_ready():
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://{url}/-/ready", timeout=5).ok
        return False

    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stderr=log) as process:
        try:
            eventually(is_ready, 30, pause=0.1)
            yield f"http://{url}"
        finally:
            process.terminate()


def metric(name):
    """An OTLP request with one metric, as JSON."""
    point = {"timeUnixNano": str(time.time_ns()), "asInt": "1"}
    metrics = [{"name": name, "gauge": {"dataPoints": [point]}}]
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})


def kept(url, name):
    return requests.get(f"{url}/api/v1/query", {"query": name}, timeout=5).json()["data"]["result"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_prometheus_lets_no_page_read(prometheus, origin):
    answer = requests.get(f"{prometheus}/api/v1/query", {"query": "up"}, headers={"Origin": origin}, timeout=5)
    assert answer.ok
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origin", ORIGINS)
def test_prometheus_tells_a_browser_that_asks_first_that_no_page_may_write(prometheus, origin):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = requests.options(f"{prometheus}{RECEIVER}", headers=asked, timeout=5)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; x=application/json", "multipart/form-data", None])
def test_prometheus_takes_nothing_that_a_browser_sends_without_asking(prometheus, kind):
    headers = {"Origin": ORIGINS[0], "Content-Type": kind}
    answer = requests.post(f"{prometheus}{RECEIVER}", data=metric("by_page"), headers=headers, timeout=5)
    assert answer.status_code == 400
    assert not kept(prometheus, "by_page")


def test_prometheus_takes_what_the_collector_sends(prometheus):
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{prometheus}{RECEIVER}", data=metric("by_collector"), headers=headers, timeout=5)
    assert answer.status_code == 200
    assert kept(prometheus, "by_collector")


def test_alertmanager_which_lets_every_page_silence_it_is_not_published():
    assert "ports" not in OVERLAY["alertmanager"]
