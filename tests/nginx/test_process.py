"""nginx as a process: found, configured, started, stopped; nothing stays behind."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from local import debian, nginx
from local.errors import LocalError
from tests.fixtures.gateway import answer
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

GIXY_SKIPS = "missing_resolver"  # proxy_pass names upstream groups of ours, through a variable: nothing is resolved


@pytest.mark.parametrize("tracing", ["log", "off"])
def test_the_configuration_is_valid_and_gixy_finds_nothing(tmp_path, nginx_program, tracing):
    conf = nginx.render(tmp_path / "a b" / "nginx", {"GATEWAY_TRACING": tracing})
    tested = subprocess.run([*nginx.command(nginx_program, conf), "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr
    gixy = subprocess.run(
        [Path(sys.executable).with_name("gixy"), "-f", "json", "--skips", GIXY_SKIPS, conf],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(gixy.stdout) == [], gixy.stdout + gixy.stderr


def test_the_readme_documents_every_variable_and_its_default():
    readme = (nginx.SOURCE / "README.md").read_text()
    for name, default in nginx.DEFAULTS.items():
        assert f"| `{name}` | `{default}` |" in readme


def test_rendering_again_replaces_what_was_there(tmp_path):
    nginx.render(tmp_path, {"LOGIN_RATE": "99r/s"})
    nginx.render(tmp_path)
    assert "99r/s" not in (tmp_path / "gateway.conf").read_text()
    assert "${" not in (tmp_path / "gateway.conf").read_text().replace("${log_milliseconds}", "")


@pytest.mark.parametrize(
    "settings",
    [
        {"GATEWAY_TRACING": "module"},
        {"GATEWAY_TRACING": "../local/nginx"},
        {"LOGIN_RATE": "1r/s; return 200"},
        {"LOGIN_RATE": ""},
        {"NO_SUCH": "1"},
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_name(tmp_path, settings):
    with pytest.raises(LocalError, match=next(iter(settings))):
        nginx.render(tmp_path / "conf", settings)
    assert not (tmp_path / "conf").exists()


def test_a_graceful_stop_finishes_requests_in_flight(start_gateway):
    gateway = start_gateway()
    arrived, go_on = threading.Event(), threading.Event()

    def reply(_received):
        arrived.set()
        go_on.wait(10)
        return answer()

    gateway.services["order"].reply = reply
    got = []
    client = threading.Thread(target=lambda: got.append(gateway.request("POST", "/orders/", body=b"{}")))
    client.start()
    assert arrived.wait(10)
    gateway.process.send_signal(signal.Signals[f"SIG{nginx.STOP_SIGNAL}"])
    eventually(lambda: not listens(gateway.port))
    go_on.set()
    client.join()
    assert gateway.process.wait(10) == 0
    assert got[0].status == 200


def test_nginx_may_take_as_long_to_stop_as_its_workers():
    (seconds,) = re.findall(
        r"worker_shutdown_timeout (\d+)s;", (nginx.SOURCE / "local/nginx.conf.template").read_text()
    )
    assert int(seconds) < nginx.STOP_SECONDS


def test_where_the_system_allows_few_open_files_nginx_takes_as_many_connections_and_says_nothing(
    start_gateway, monkeypatch
):
    plain = nginx.command
    monkeypatch.setattr(nginx.resource, "getrlimit", lambda _: (100, 300))
    monkeypatch.setattr(nginx, "command", lambda *given: ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *plain(*given)])
    gateway = start_gateway()
    assert gateway.request("GET", "/healthz").status == 200
    assert main_settings(gateway.directory / "run dir/conf/nginx/nginx.conf") == (300, 150)
    assert set(re.findall(r"\[(\w+)\]", (gateway.directory / "stderr").read_text())) == {"notice"}


@pytest.mark.parametrize("most", [resource.RLIM_INFINITY, 1_048_576])
def test_where_it_allows_many_both_modes_have_the_same(tmp_path, monkeypatch, most):
    monkeypatch.setattr(nginx.resource, "getrlimit", lambda _: (1024, most))
    composes = main_settings(nginx.SOURCE / "compose/nginx.conf")
    assert main_settings(nginx.render(tmp_path)) == composes == (2 * 4096, 4096)
    compose = yaml.safe_load((nginx.SOURCE.parent / "docker-compose.yml").read_text())
    assert compose["services"]["nginx"]["ulimits"]["nofile"] == composes[0]


def main_settings(conf):
    """How many files a worker may have open, and how many connections."""
    text = conf.read_text()
    return tuple(int(re.search(rf"{name} (\d+);", text)[1]) for name in ("worker_rlimit_nofile", "worker_connections"))


def test_nginx_ends_with_a_parent_that_is_killed(tmp_path, nginx_program):
    port = free_port()
    conf = nginx.render(tmp_path / "nginx", {"GATEWAY_LISTEN": f"127.0.0.1:{port}"})
    program = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *nginx.command(nginx_program, conf)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    master = psutil.Process(int(parent.stdout.readline()))
    eventually(lambda: listens(port) and len(master.children()) == 2)
    family = [master, *master.children()]
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    eventually(lambda: not listens(port))
    eventually(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family))


def test_nothing_is_written_outside_the_configuration_and_nobody_elses_permission_is_needed(start_gateway, tmp_path):
    gateway = start_gateway()
    (tmp_path / "run dir").chmod(0o700)
    gateway.services["product"].reply = lambda _: answer("200 OK", b"a" * 3_000_000)
    assert len(gateway.request("GET", "/products/").body) == 3_000_000
    assert gateway.request("POST", "/orders/", body=b"a" * 65536).status == 200
    master = psutil.Process(gateway.process.pid)
    users = {process.uids().effective for process in [master, *master.children()]}
    assert users == {os.geteuid()}
    conf = tmp_path / "run dir" / "conf" / "nginx"
    assert (conf / "nginx.pid").read_text().strip() == str(master.pid)
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {"run dir", "stdout", "stderr"}


def test_the_nginx_of_the_environment_comes_first(monkeypatch, tmp_path, nginx_program):
    mine = fake_nginx(tmp_path, "nginx/1.29.0")
    monkeypatch.setenv("NGINX", str(mine))
    assert nginx.find() == mine
    monkeypatch.setenv("NGINX", "")
    monkeypatch.setenv("PATH", str(nginx_program.parent), prepend=os.pathsep)
    assert nginx.find() == nginx_program


@pytest.mark.parametrize(
    ("says", "sentence"), [("nginx/1.17.10", "1.17.10"), ("libpcre2-8.so.0: not found", "libpcre2")]
)
def test_an_nginx_that_will_not_do_is_refused(monkeypatch, tmp_path, says, sentence):
    monkeypatch.setenv("NGINX", str(fake_nginx(tmp_path, says)))
    with pytest.raises(LocalError, match=sentence):
        nginx.find()


def test_a_path_to_nothing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NGINX", str(tmp_path / "none"))
    with pytest.raises(LocalError, match="set NGINX"):
        nginx.find()


def test_without_nginx_and_without_apt_the_person_learns_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("NGINX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(LocalError, match="dnf install nginx"):
        nginx.find()


def test_where_nginx_is_an_empty_package_its_core_is_fetched(monkeypatch, tmp_path):
    mine = fake_nginx(tmp_path, "nginx/1.18.0")
    monkeypatch.delenv("NGINX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)

    def fetch(package, _executable):
        if package != "nginx-core":
            raise LocalError("The package nginx of this distribution has no usr/sbin/nginx.")
        return mine

    monkeypatch.setattr(debian, "fetch", fetch)
    assert nginx.find() == mine


def fake_nginx(directory, says):
    program = directory / "nginx"
    program.write_text(f"#!/bin/sh\necho 'nginx version: {says}' >&2\n")
    program.chmod(0o755)
    return program


def listens(port):
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_start_is_quick(start_gateway):
    started = time.monotonic()
    start_gateway()
    assert time.monotonic() - started < 5
