"""The real Jaeger and Loki beside the embedded backend: the same is sent to both, and asked of both."""

import contextlib
import os
import subprocess

import pytest

from local import processes
from tests.fixtures.embedded import PROJECT, Otlp, running_embedded
from tests.fixtures.ports import free_ports
from tests.fixtures.programs import find_program
from tests.fixtures.services import Client, eventually


@contextlib.contextmanager
def running(folder, command, environment, is_ready):
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
    try:

        def answers():
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError):
                return is_ready()
            return False

        eventually(answers, 60, pause=0.1)
        yield
    finally:
        processes.end(process, 20)


class Real:
    """A real backend: where it takes OTLP, and its API."""

    def __init__(self, otlp, api):
        self.otlp = otlp
        self.api = api

    def close(self):
        self.otlp.session.close()
        self.api.session.close()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    """One that knows nothing but what these tests send to both."""
    with running_embedded(tmp_path_factory.mktemp("embedded")) as backend:
        yield backend


@pytest.fixture(scope="session")
def real_jaeger(tmp_path_factory):
    """Jaeger as Compose runs it, with our configuration."""
    program = find_program("jaeger")
    folder = tmp_path_factory.mktemp("jaeger")
    ports = free_ports(5)
    names = ("OTLP_PORT", "JAEGER_PORT", "JAEGER_GRPC_PORT", "HEALTH_PORT", "TELEMETRY_PORT")
    environment = {
        **{name: str(port) for name, port in zip(names, ports, strict=True)},
        "LISTEN_HOST": "127.0.0.1",
        "DATA_DIRECTORY": str(folder),
        "UI_CONFIG": str(PROJECT / "observability/jaeger/ui.json"),
    }
    real = Real(Otlp(f"http://127.0.0.1:{ports[0]}"), Client(f"http://127.0.0.1:{ports[1]}"))
    health = Client(f"http://127.0.0.1:{ports[3]}")
    command = [program, "--config", str(PROJECT / "observability/jaeger/config.yaml")]
    with running(folder, command, environment, lambda: health.get("/status").status_code == 200):
        health.session.close()
        yield real
        real.close()


@pytest.fixture(scope="session")
def real_loki(tmp_path_factory):
    """Loki as Compose runs it, with our configuration."""
    program = find_program("loki")
    folder = tmp_path_factory.mktemp("loki")
    http, grpc = free_ports(2)
    environment = {
        "LOKI_PORT": str(http),
        "LOKI_GRPC_PORT": str(grpc),
        "LISTEN_HOST": "127.0.0.1",
        "DATA_DIRECTORY": str(folder),
    }
    root = f"http://127.0.0.1:{http}"
    real = Real(Otlp(root, "/otlp"), Client(root))
    command = [program, f"-config.file={PROJECT / 'observability/loki/config.yaml'}", "-config.expand-env=true"]
    with running(folder, command, environment, lambda: real.api.get("/ready").status_code == 200):
        yield real
        real.close()
