"""The engines that an overlay may add: Alertmanager in a cluster, Grafana, Jaeger."""

import pytest
import requests

from tests.fixtures.services import eventually
from tests.kubernetes.cluster import PROJECT

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

COMPONENTS = PROJECT / "deploy" / "kubernetes" / "components"
TELEMETRY = ("-n", "shop-telemetry")


@pytest.fixture
def added(shop, request):
    """A component beside the shop, as its parameter says: (kind/name of what it runs)."""
    name, workload = request.param
    stack = str(COMPONENTS / name / "stack")
    there = shop.cluster.kubectl(*TELEMETRY, "get", "service", name, "--ignore-not-found", "-o", "yaml")
    shop.cluster.kubectl("apply", "-k", stack)
    try:
        shop.cluster.kubectl(*TELEMETRY, "rollout", "status", workload, "--timeout=120s", seconds=130)
        yield workload
    finally:
        shop.cluster.kubectl("delete", "-k", stack, "--timeout=100s", seconds=110)
        shop.cluster.kubectl(*TELEMETRY, "delete", "persistentvolumeclaim", "-l", f"app.kubernetes.io/name={name}")
        if there:  # embedded-backend has that name, too
            shop.cluster.kubectl("apply", "-k", str(COMPONENTS / "embedded-backend" / "stack"))


@pytest.mark.parametrize("added", [("alertmanager", "statefulset/alertmanager")], indirect=True)
def test_prometheus_tells_every_alertmanager_and_they_are_one_cluster(shop, added):
    shop.cluster.kubectl(*TELEMETRY, "scale", added, "--replicas=3")
    shop.cluster.kubectl(*TELEMETRY, "rollout", "status", added, "--timeout=120s", seconds=130)
    alertmanager = shop.forward("shop-telemetry", "alertmanager", 9093)
    prometheus = shop.forward("shop-telemetry", "prometheus", 9090)
    eventually(
        lambda: len(requests.get(f"{alertmanager}/api/v2/status", timeout=10).json()["cluster"]["peers"]) == 3,
        60,
        pause=1,
    )
    eventually(
        lambda: (
            len(requests.get(f"{prometheus}/api/v1/alertmanagers", timeout=10).json()["data"]["activeAlertmanagers"])
            == 3
        ),
        60,
        pause=1,
    )


@pytest.mark.parametrize("added", [("grafana", "deployment/grafana")], indirect=True)
def test_grafana_starts_with_all_dashboards_and_may_write_nothing_but_its_own_folder(shop, added):
    grafana = shop.forward("shop-telemetry", "grafana", 3000)
    assert requests.get(f"{grafana}/api/health", timeout=10).json()["database"] == "ok"
    inside = (*TELEMETRY, "exec", added, "--")
    dashboards = shop.cluster.kubectl(*inside, "ls", "/etc/grafana/dashboards").split()
    assert dashboards == sorted(path.name for path in (PROJECT / "observability/grafana/dashboards").iterdir())
    assert "Read-only file system" in shop.cluster.refused(*inside, "touch", "/etc/grafana/x")


@pytest.mark.parametrize("added", [("jaeger", "statefulset/jaeger")], indirect=True)
def test_jaeger_answers_for_an_order_when_the_collector_sends_there(shop, added):
    shop.connect()
    environment = shop.cluster.get(*TELEMETRY, "statefulset", "collector")["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    (before,) = [entry["value"] for entry in environment if entry["name"] == "JAEGER_ENDPOINT"]

    def send(endpoint):
        shop.cluster.kubectl(*TELEMETRY, "set", "env", "statefulset/collector", f"JAEGER_ENDPOINT={endpoint}")
        shop.cluster.kubectl(*TELEMETRY, "rollout", "status", "statefulset/collector", "--timeout=100s", seconds=110)

    send("http://jaeger:4318")
    try:
        _, trace_id = shop.order(shop.login())
        jaeger = shop.forward("shop-telemetry", "jaeger", 16686)

        def services():
            answer = requests.get(f"{jaeger}/api/traces/{trace_id}", timeout=10)
            found = answer.json()["data"] if answer.ok else []
            return {one["serviceName"] for trace in found for one in trace["processes"].values()}

        eventually(lambda: services() == {"nginx", "order-service", "product-service", "payment-service"}, 60, pause=1)
    finally:
        send(before)
