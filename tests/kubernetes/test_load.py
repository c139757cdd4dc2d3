"""Load from inside the cluster: Locust's master and workers, through the gateway, and the books afterwards."""

import json

import pytest
import requests

from tests.fixtures.services import eventually
from tests.kubernetes.cluster import PROJECT, tell

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

LOAD = str(PROJECT / "deploy" / "kubernetes" / "components" / "load" / "stack")


@pytest.fixture(scope="module")
def load(shop):
    """The load test beside the shop, with two workers."""
    shop.cluster.kubectl("apply", "-k", LOAD)
    try:
        shop.cluster.kubectl("-n", "shop", "scale", "deployment/loadtest-worker", "--replicas=2")
        for name in ("loadtest", "loadtest-worker"):
            shop.cluster.kubectl("-n", "shop", "rollout", "status", f"deployment/{name}", "--timeout=100s", seconds=110)
        yield
    finally:
        shop.cluster.kubectl("delete", "-k", LOAD, "--timeout=100s", seconds=110)


def test_workers_that_were_scaled_make_the_load_and_the_books_balance(shop, load, request):
    master = ("-n", "shop", "exec", "deployment/loadtest", "--")
    prometheus = shop.forward("shop-telemetry", "prometheus", 9090)
    # What is asked here is whether all is counted and nothing is lost, not how fast this machine is just now.
    wide = ("--p95-ms", "60000", "--p99-ms", "60000", "--max-failed", "0.2")
    for _ in range(2):  # the workers come back for the next run
        said = shop.cluster.kubectl(
            *(*master, "env", "LOAD_WORKERS=2", "python", "-m", "loadtest", "--users", "6", "--seconds", "15", *wide),
            seconds=200,
        )
        assert "GOOD: all limits kept, the books are balanced." in said
        report = json.loads(shop.cluster.kubectl(*master, "cat", "/results/latest/report.json"))
        assert report["workers"] == {"began": 2, "ended": 2}
        assert report["books"]["told"] > 10
        assert report["server"]["services"]["order-service"]["rate"] > 0
        tell(request, f"load from inside: {report['total']['rate']:.0f} requests/s, p99 {report['total']['p99']} ms")

    def told():
        query = 'count by (k8s_pod_name) (loadtest_request_duration_seconds_count{job="loadtest"})'
        answer = requests.get(
            f"{prometheus}/api/v1/query", params={"query": f"last_over_time(({query})[5m:5s])"}, timeout=10
        )
        return len(answer.json()["data"]["result"]) == 2

    eventually(told, 30, pause=1)


def test_the_load_tests_pods_reach_nothing_but_the_gateway_the_books_and_prometheus(shop, load):
    connect = (
        "import socket, sys\n"
        "try:\n    socket.create_connection((sys.argv[1], int(sys.argv[2])), 4).close(); print('connected')\n"
        "except OSError as error: print(type(error).__name__)"
    )

    def reached(deployment, *target):
        said = shop.cluster.kubectl(
            "-n", "shop", "exec", f"deployment/{deployment}", "--", "python", "-c", connect, *target
        )
        return said.strip() == "connected"

    assert reached("loadtest", "nginx", "80")
    assert reached("loadtest", "order-db", "5432")
    assert reached("loadtest-worker", "nginx", "80")
    if reached("loadtest-worker", "order-db", "5432"):
        pytest.skip("this cluster's network enforces no NetworkPolicies")
    assert not reached("loadtest-worker", "prometheus.shop-telemetry", "9090")
    assert not reached("loadtest", "order-service", "5004")
