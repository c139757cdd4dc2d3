"""The Collector on each node of a Kubernetes cluster, as a program: what it makes of a container's log file."""

import subprocess

import pytest
import requests

from tests.fixtures.ports import free_ports
from tests.fixtures.services import eventually
from tests.observability.conftest import OBSERVABILITY

UID = "0f0e0d0c-0b0a-0908-0706-050403020100"
LINE = '{"event": "order.created"}'


@pytest.fixture
def pods(program, backends, tmp_path):
    """The folder of the containers' log files, which an agent follows."""
    folder = tmp_path / "pods"
    folder.mkdir()
    (port,) = free_ports(1)
    command = [
        program("otelcol"),
        f"--config={OBSERVABILITY / 'collector' / 'kubernetes' / 'agent.yaml'}",
        f"--set=extensions::health_check::endpoint=127.0.0.1:{port}",
        "--set=service::telemetry::metrics::level=none",
    ]
    settings = {
        "PODS_DIRECTORY": str(folder),
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "COLLECTOR_ENDPOINT": f"{backends.endpoint}/loki",
        "K8S_NODE_NAME": "node-1",
    }
    log = tmp_path / "agent.log"
    with log.open("wb") as output, subprocess.Popen(command, env=settings, stdout=output, stderr=output) as agent:

        def healthy():
            assert agent.poll() is None, log.read_text()[-3000:]
            try:
                return requests.get(f"http://127.0.0.1:{port}", timeout=2).ok
            except requests.ConnectionError:
                return False

        eventually(healthy, 30, pause=0.1)
        yield folder
        agent.kill()


def write(pods, namespace, container, line):
    file = pods / f"{namespace}_{container}-7c9d_{UID}" / container / "0.log"
    file.parent.mkdir(parents=True)
    file.write_text(f"2026-11-29T09:36:13.123456789Z stdout F {line}\n")


def test_a_line_says_which_pod_wrote_it_and_nothing_beside_that(pods, backends):
    write(pods, "shop", "order-service", LINE)
    ((resource, record),) = eventually(backends.lines, 20)
    assert resource == {
        "k8s.namespace.name": "shop",
        "k8s.deployment.name": "order-service",
        "k8s.container.name": "order-service",
        "k8s.pod.name": "order-service-7c9d",
        "k8s.pod.uid": UID,
        "k8s.node.name": "node-1",
    }
    assert record.body.string_value == LINE
    assert record.observed_time_unix_nano == 0  # else Loki keeps a field `observed_timestamp` with every line


def test_only_the_shop_s_long_running_parts_are_followed(pods, backends):
    for namespace, container in (
        ("shop", "order-db"),
        ("shop", "wait-for-migrations"),
        ("shop-telemetry", "collector"),
        ("elsewhere", "order-service"),
    ):
        write(pods, namespace, container, f"not ours: {namespace} {container}")
    write(pods, "shop-telemetry", "gateway-telemetry", "of what reads the gateway's log")
    write(pods, "shop", "nginx", "of the gateway")
    lines = eventually(lambda: (found := backends.lines()) and len(found) >= 2 and found, 20)
    assert {record.body.string_value for _, record in lines} == {"of what reads the gateway's log", "of the gateway"}
