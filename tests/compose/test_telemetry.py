"""The telemetry contract and the canary, with the real Collector, Jaeger and Prometheus: as in local mode."""

import contextlib

import pytest

from tests.telemetry.canary_tests import *  # noqa: F403
from tests.telemetry.contract_tests import *  # noqa: F403
from tests.telemetry.evidence import gather
from tests.telemetry.watch import SERVICES, Watched

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

ASK = (
    "import os, urllib.request as r\n"
    "url = f'http://127.0.0.1:{os.environ[\"PORT\"]}/metrics'\n"
    "ask = r.Request(url, headers={'Accept': 'application/openmetrics-text; version=1.0.0'})\n"
    "print(r.urlopen(ask, timeout=10).read().decode(), end='')"
)


class WatchedInCompose(Watched):
    """The stack in Docker Compose."""

    mode = "compose"

    def __init__(self, observed):
        self._observed = observed
        super().__init__(observed.gateway, observed.jaeger_url, observed.loki_url, observed.prometheus_url)

    @contextlib.contextmanager
    def frozen(self, *parts):
        containers = [container for part in parts for container in self._observed.containers(part)]
        self._observed.run("docker", "pause", *containers)
        try:
            yield
        finally:
            self._observed.run("docker", "unpause", *containers)

    def query(self, statement):
        return self._observed.query(statement)

    def expositions(self):
        for part in (*SERVICES, "gateway-telemetry"):
            status, text = self._observed.inside(part, "python", "-c", ASK)
            assert status == 0, text
            yield "nginx" if part == "gateway-telemetry" else part, text

    def files(self):
        return {f"logs/{service}": text for service, text in self._observed.logs().items()}


@pytest.fixture(scope="module")
def evidence(observed):
    # It starts together with the Collector, and a line that Docker sends in the moment in which that starts is lost.
    observed.compose("restart", "gateway-telemetry")
    observed.wait_until_ready()
    with contextlib.closing(WatchedInCompose(observed)) as watched:
        yield gather(watched)
    observed.wait_until_ready()
