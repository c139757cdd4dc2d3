"""The telemetry contract and the canary in a cluster, with Kubernetes' attributes in every signal."""

import contextlib

import pytest

from tests.kubernetes.cluster import LOG_PARTS
from tests.telemetry.canary_tests import *  # noqa: F403
from tests.telemetry.contract_tests import *  # noqa: F403
from tests.telemetry.evidence import gather
from tests.telemetry.watch import SERVICES, Watched

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

ASK = """
import sys, urllib.request as r
ask = r.Request(f"http://127.0.0.1:{sys.argv[1]}/metrics",
                headers={"Accept": "application/openmetrics-text; version=1.0.0"})
print(r.urlopen(ask, timeout=10).read().decode(), end="")
"""
PORTS = dict(zip(SERVICES, (5001, 5002, 5003, 5004, 5005), strict=True))


class WatchedInKubernetes(Watched):
    """The shop in a cluster."""

    mode = "kubernetes"

    def __init__(self, shop):
        self._shop = shop
        forwarded = [("embedded-backend", 16686), ("embedded-backend", 3100), ("prometheus", 9090)]
        super().__init__(shop.gateway, *(shop.forward("shop-telemetry", *one) for one in forwarded))

    @contextlib.contextmanager
    def frozen(self, *parts):
        pods = [(pod, part) for part in parts for pod in self._shop.pods(part)]
        for pod, part in pods:
            self._shop.signal(pod, part, "STOP")
        try:
            yield
        finally:
            for pod, part in pods:
                self._shop.signal(pod, part, "CONT")

    def query(self, statement):
        return self._shop.query(statement)

    def expositions(self):
        for part, port in PORTS.items():
            yield part, self._metrics("shop", part, port)
        yield "nginx", self._metrics("shop-telemetry", "gateway-telemetry", 9145)
        yield "embedded-backend", self._metrics("shop-telemetry", "embedded-backend", 4318)

    def _metrics(self, namespace, part, port):
        kind = "statefulset" if part == "embedded-backend" else "deployment"
        where = ("-n", namespace, "exec", f"{kind}/{part}", "-c", part, "--")
        return self._shop.cluster.kubectl(*where, "python", "-c", ASK, str(port))

    def files(self):
        return {
            f"logs/{part}": self._shop.cluster.kubectl("-n", namespace, "logs", f"{kind}/{part}", "--all-containers")
            for namespace, kind, part in LOG_PARTS
        }


@pytest.fixture(scope="module")
def evidence(signalled):
    signalled.connect()
    with contextlib.closing(WatchedInKubernetes(signalled)) as watched:
        yield gather(watched)
    signalled.wait_until_ready()
