"""Prometheus of local mode, each version that is at hand: Debian's (2.42 in Debian 12), and the one on PATH."""

import json
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from local import debian, prometheus
from local.errors import LocalError
from local.processes import child
from tests.fixtures.ports import free_port
from tests.fixtures.programs import has_program
from tests.fixtures.services import eventually


@pytest.fixture(params=["the distribution's", *(["the newest"] if has_program("prometheus") else [])])
def program(request):
    if request.param == "the distribution's":
        if not shutil.which("apt-get"):
            pytest.skip("no apt here")
        return debian.fetch("prometheus", "usr/bin/prometheus")
    return Path(has_program("prometheus"))


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """Nothing on PATH, an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PROMETHEUS", raising=False)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@contextmanager
def running(program, tmp_path, monkeypatch, *targets):
    """Prometheus as `make up` runs it, on a free port; the first target is itself, the second is nobody."""
    monkeypatch.setenv("PROMETHEUS", str(program))
    port, nobody = free_port(), free_port()
    conf = prometheus.render(tmp_path / "conf", dict(zip(targets, (port, nobody), strict=False)))
    command = prometheus.command(prometheus.find(), conf, tmp_path / "data", port)
    with (tmp_path / "log").open("wb") as log, child(command, stdout=log, stderr=log) as process:
        yield port
    assert process.returncode == 0, (tmp_path / "log").read_text()


def is_ready(port):
    with suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=5).ok
    return False


def test_no_web_page_may_read_or_write_it(program, tmp_path, monkeypatch):
    with running(program, tmp_path, monkeypatch) as port:
        eventually(lambda: is_ready(port), 30, pause=0.2)
        url = f"http://127.0.0.1:{port}/api/v1/query"
        for origin in ("https://evil.example", "http://localhost:3000", "null"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            for answer in (requests.get(url, {"query": "up"}, headers=asked), requests.options(url, headers=asked)):
                assert answer.ok
                assert "Access-Control-Allow-Origin" not in answer.headers
        for path in ("otlp/v1/metrics", "write"):
            assert requests.post(f"http://127.0.0.1:{port}/api/v1/{path}", data=b"{}").status_code == 404


def test_it_scrapes_the_targets_under_their_names_and_evaluates_the_rules(program, tmp_path, monkeypatch):
    def ask(path, **parameters):
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/api/v1/{path}", params=parameters, timeout=5)
        except requests.ConnectionError:
            return None
        return answer.json().get("data") if answer.ok else None

    def up():
        result = (ask("query", query="up") or {"result": []})["result"]
        return {(one["metric"]["job"], one["metric"]["service_name"]): one["value"][1] for one in result}

    with running(program, tmp_path, monkeypatch, "prometheus", "order-service") as port:
        wanted = {("prometheus", "prometheus"): "1", ("order-service", "order-service"): "0"}
        eventually(lambda: up() == wanted, 30, pause=0.2)
        files = {Path(group["file"]).name for group in ask("rules")["groups"]}
        assert files == {path.name for path in (prometheus.SOURCE / "rules").glob("*.yml")}
        assert ask("query_exemplars", query="up", start="0", end="1") == []  # refused where they are not kept


def test_the_configuration_is_written_anew_each_time(tmp_path):
    prometheus.render(tmp_path, {"order-service": 1})
    (tmp_path / "rules" / "gone.yml").write_text("groups: []")
    prometheus.render(tmp_path, {"user-service": 2})
    assert not (tmp_path / "rules" / "gone.yml").exists()
    assert json.loads((tmp_path / "targets.json").read_text()) == [
        {"targets": ["127.0.0.1:2"], "labels": {"job": "user-service", "service_name": "user-service"}}
    ]


def test_alerts_are_as_patient_as_alert_for_says(tmp_path, monkeypatch):
    def patience(wish):
        monkeypatch.setenv("ALERT_FOR", wish)
        prometheus.render(tmp_path, {})
        return {
            line.split()[1]
            for line in (tmp_path / "rules" / "alerts.yml").read_text().splitlines()
            if re.match(r" +(keep_firing_)?for: ", line)
        }

    assert patience("") == {"30s", "1m", "5m", "7m"}
    assert patience("5s") == {"5s"}
    with pytest.raises(LocalError, match="ALERT_FOR must be a duration such as 5s, not 'soon'"):
        patience("soon")


def test_where_there_is_none_it_says_what_to_do(no_programs):
    with pytest.raises(LocalError, match="prometheus is not installed: install it with your package manager"):
        prometheus.find()


def test_the_one_on_the_path_is_taken(no_programs, tmp_path):
    program = script(tmp_path / "prometheus", "echo 'prometheus, version 2.42.0 (branch: HEAD)' >&2")
    assert prometheus.find() == program


@pytest.mark.parametrize("said", ["prometheus, version 2.25.9 (branch: HEAD)", "what?", ""])
def test_one_that_will_not_do_is_told_with_what_it_said(no_programs, tmp_path, monkeypatch, said):
    program = script(tmp_path / "mine", f"echo '{said}'")
    monkeypatch.setenv("PROMETHEUS", str(program))
    with pytest.raises(LocalError, match=rf"mine cannot be used \({said[:10]}.*\): set PROMETHEUS to"):
        prometheus.find()
