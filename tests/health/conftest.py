"""The stack that is looked at: the one that runs, wherever it is."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fixtures.services import Client, sample

PROJECT = Path(__file__).parents[2]
SERVICES = {"auth": 5001, "user": 5002, "product": 5003, "order": 5004, "payment": 5005}


class RunningStack:
    """A running stack; the environment says where, as for `make up` (GATEWAY_PORT, RUN_DIR, ...)."""

    def __init__(self, environment):
        self.gateway = Client(f"http://localhost:{environment.get('GATEWAY_PORT', 8080)}")
        self.services = {
            name: Client(f"http://localhost:{environment.get(f'{name.upper()}_PORT', port)}")
            for name, port in SERVICES.items()
        }
        self._logs = Path(environment.get("RUN_DIR") or PROJECT / ".run") / "logs"

    def log_lines(self, service, trace_id):
        """A service's log lines of a trace."""
        lines = (self._logs / f"{service}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if trace_id in line]


class ComposedService:
    """A service in Docker Compose. No port of it is published, so the requests are made inside its containers."""

    _ASK = (
        "import os, sys, urllib.request as r, urllib.error as e\n"
        "try: a = r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}{sys.argv[1]}', timeout=10)\n"
        "except e.HTTPError as error: a = error\n"
        "print(a.status); print(a.read().decode())"
    )

    def __init__(self, compose, name):
        self._compose, self._name = compose, name

    def get(self, path):
        """The answers of all replicas as one: the worst status, the texts one after the other."""
        containers = self._compose("ps", "--quiet", self._name).split()
        assert containers, f"{self._name} is not running"
        command = ("docker", "exec", None, "python", "-c", self._ASK, path)
        answers = [_run([part or container for part in command]).partition("\n") for container in containers]
        return SimpleNamespace(
            status_code=max(int(status) for status, _, _ in answers), texts=[text for _, _, text in answers]
        )

    def metric(self, name, **labels):
        """The sum of a sample over all replicas."""
        return sum(sample(text, name, **labels) for text in self.get("/metrics").texts)


class ComposedStack:
    """The stack that runs in Docker Compose; GATEWAY_PORT as for `docker compose up`."""

    def __init__(self, environment):
        self._command = shlex.split(environment["HEALTH_COMPOSE"])
        self.gateway = Client(f"http://localhost:{environment.get('GATEWAY_PORT') or 80}")
        self.services = {name: ComposedService(self._compose, f"{name}-service") for name in SERVICES}

    def log_lines(self, service, trace_id):
        """A service's log lines of a trace, of all its replicas."""
        lines = self._compose("logs", "--no-log-prefix", "--since", "5m", service).splitlines()
        return [json.loads(line) for line in lines if trace_id in line]

    def _compose(self, *arguments):
        return _run([*self._command, *arguments])


def _run(command):
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def running():
    return ComposedStack(os.environ) if os.environ.get("HEALTH_COMPOSE") else RunningStack(os.environ)
