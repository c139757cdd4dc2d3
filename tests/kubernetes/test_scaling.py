"""More pods when there is more work, and the new ones get their share of it."""

import json

import pytest

from tests.fixtures.services import eventually
from tests.kubernetes.cluster import tell

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

# Lower than in production, so that four visitors are enough; and down again at once.
AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "order-service", "namespace": "shop"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "order-service"},
        "minReplicas": 1,
        "maxReplicas": 3,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 20}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
    },
}


def orders_by_pod(shop):
    """How many orders each pod of order-service has answered, by its own metrics."""
    code = (
        "import re, urllib.request\n"
        "text = urllib.request.urlopen('http://127.0.0.1:5004/metrics').read().decode()\n"
        "print(sum(float(n) for n in re.findall(r'^orders_total\\{.*\\} (\\S+)', text, re.M)))"
    )
    return {
        pod: float(shop.cluster.kubectl("-n", "shop", "exec", pod, "-c", "order-service", "--", "python", "-c", code))
        for pod in shop.pods("order-service")
    }


def test_under_load_there_are_more_pods_which_share_it_and_afterwards_fewer(shop, request):
    if not shop.cluster.get("apiservices")["items"] or "v1beta1.metrics.k8s.io" not in {
        one["metadata"]["name"] for one in shop.cluster.get("apiservices")["items"]
    }:
        pytest.skip("this cluster has no metrics-server, without which nothing scales")
    shop.cluster.kubectl("apply", "-f", "-", given=json.dumps(AUTOSCALER))
    try:
        with shop.visited("--eager") as seen:
            eventually(
                lambda: (
                    shop.cluster.get("-n", "shop", "deployment", "order-service")["status"].get("readyReplicas") == 3
                ),
                150,
                pause=1,
            )
            began = orders_by_pod(shop)
            eventually(lambda: sum(orders_by_pod(shop).values()) - sum(began.values()) > 150, 60, pause=1)
            shares = {pod: number - began.get(pod, 0) for pod, number in orders_by_pod(shop).items()}
        tell(request, f"three pods share the orders: {sorted(shares.values())}")
        assert {answer for answer in seen.answers if answer.split()[-1] not in {"200", "201", "202"}} == set()
        assert min(shares.values()) > sum(shares.values()) / 10
        eventually(lambda: len(shop.pods("order-service")) == 1, 200, pause=1)
    finally:
        shop.cluster.kubectl("-n", "shop", "delete", "hpa", "order-service")
        shop.cluster.kubectl("-n", "shop", "scale", "deployment/order-service", "--replicas=1")
