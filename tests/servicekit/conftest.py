"""A real gunicorn with a service in it."""

import json
import os
import subprocess
import sys

import pytest
import requests

from local import processes
from tests.fixtures.database import PROJECT
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client

SAMPLE = "tests.servicekit.sample:create_app()"


GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "python:servicekit.process.gunicorn_conf"]


class Server:
    def __init__(self, app, log, command=None, **env):
        self.log = log
        paths = (PROJECT, PROJECT / "services", PROJECT / "services/product/src")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command or [*GUNICORN, *([app] if app else [])],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def address(self):
        return "127.0.0.1", int(self.client.root.rpartition(":")[2])

    @property
    def output(self):
        return self.log.read_text()

    @property
    def events(self):
        return [json.loads(line) for line in self.output.splitlines()]

    def is_up(self):
        assert self.process.poll() is None, self.output
        try:
            return requests.get(f"{self.client.root}/healthz", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):  # it listens before its worker is there
            return False

    def stop(self):
        return processes.end(self.process, 20)


@pytest.fixture
def start(tmp_path):
    servers = []

    def run(app=None, **env):
        port = free_port()
        server = Server(app, tmp_path / f"{len(servers)}.log", **{"PORT": str(port), **env})
        server.client = Client(f"http://127.0.0.1:{port}")
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.client.session.close()
        server.stop()
