"""The stack that is looked at: the one that runs, wherever it is."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from observability.contract import spans_of
from tests.fixtures.services import Client, sample

ABSENT = pytest.StashKey[set]()
PROJECT = Path(__file__).parents[2]
SERVICES = {"auth": 5001, "user": 5002, "product": 5003, "order": 5004, "payment": 5005}


def _backend(environment, name, port):
    return Client(f"http://localhost:{environment.get(f'{name}_PORT') or port}")


class Backends:
    """Jaeger and Loki: the same in both modes. The environment has the ports, as for the stack."""

    def __init__(self, environment):
        self._jaeger, self._loki = _backend(environment, "JAEGER", 16686), _backend(environment, "LOKI", 3100)

    def trace(self, trace_id):
        """The spans of a trace that are there."""
        answer = self._jaeger.get(f"/api/traces/{trace_id}")
        assert answer.status_code in {200, 404}, answer.text
        return [span for trace in answer.json()["data"] or () for span in spans_of(trace)]

    def lines(self, query):
        """The log lines of the last minutes that a LogQL query finds."""
        answer = self._loki.get("/loki/api/v1/query_range", params={"query": query})
        assert answer.status_code == 200, answer.text
        streams = answer.json()["data"]["result"]
        return [json.loads(text) for stream in streams for _, text, *_ in stream["values"]]


class Prometheus:
    """Prometheus, in both modes."""

    def __init__(self, environment):
        self._client = _backend(environment, "PROMETHEUS", 9090)

    def query(self, query):
        """The labels and value of each series that a PromQL query gives."""
        answer = self._client.get("/api/v1/query", params={"query": query})
        assert answer.status_code == 200, answer.text
        return [(series["metric"], float(series["value"][1])) for series in answer.json()["data"]["result"]]


class RunningStack:
    """A running stack; the environment says where, as for `make up` (GATEWAY_PORT, RUN_DIR, ...)."""

    def __init__(self, environment):
        self.absent = {"backends", "prometheus"} if environment.get("TELEMETRY") == "off" else set()
        self.gateway = Client(f"http://localhost:{environment.get('GATEWAY_PORT', 8080)}")
        self.services = {
            name: Client(f"http://localhost:{environment.get(f'{name.upper()}_PORT', port)}")
            for name, port in SERVICES.items()
        }
        folder = Path(environment.get("RUN_DIR") or PROJECT / ".run")
        self._logs = folder / "logs"
        if (folder / "conf" / "prometheus.absent").exists():  # none to be had on this machine
            self.absent.add("prometheus")

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
        # The base file has no backends. `ps` lists those too that came with another file; those that are dead as well,
        # with `--all`: a dead backend is an illness.
        there = self._compose("ps", "--all", "--services").split()
        with_telemetry = {"jaeger", "embedded-backend"} & set(there)  # of the full overlay, of the light one
        self.absent = set() if with_telemetry else {"backends", "prometheus"}
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


def _stack():
    return ComposedStack(os.environ) if os.environ.get("HEALTH_COMPOSE") else RunningStack(os.environ)


def pytest_collection_modifyitems(config, items):
    """Leave out what looks at a backend that the stack was started without: that is no illness."""
    absent = _stack().absent
    without = [item for item in items if absent.intersection(item.fixturenames)]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)
        config.stash[ABSENT] = absent


def pytest_terminal_summary(terminalreporter, config):
    if absent := config.stash.get(ABSENT, None):
        terminalreporter.write_line(f"Not looked at, as this stack runs without: {', '.join(sorted(absent))}.")


@pytest.fixture(scope="session")
def running():
    return _stack()


@pytest.fixture(scope="session")
def backends():
    return Backends(os.environ)


@pytest.fixture(scope="session")
def prometheus():
    return Prometheus(os.environ)
