"""What the cluster refuses: pods that could do more than they need, connections that nobody needs, tokens."""

import json

import kubernetes_validate
import pytest
import yaml

from tests.fixtures.services import eventually
from tests.kubernetes.cluster import LOCAL, NAMESPACES, SERVICES, VISITOR, VISITORS, NoClusterError
from tests.kubernetes.test_schemas import NEWEST, NOT_KUBERNETES

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

OVERLAYS = LOCAL.parent
EXAMPLES = OVERLAYS.parent / "examples"

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 4).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    "harm",
    [
        {"hostNetwork": True},
        {"containers": [{"name": "x", "image": "shop/order-service:dev", "securityContext": {"privileged": True}}]},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsNonRoot": False, "runAsUser": 0}},
    ],
)
@pytest.mark.parametrize("namespace", ["shop", "shop-telemetry"])
def test_a_pod_that_breaks_policy_is_refused(shop, namespace, harm):
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "x", "image": "shop/order-service:dev", "securityContext": safe}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "harmful", "namespace": namespace}}
    apply = ("apply", "--dry-run=server", "-f", "-")
    shop.cluster.kubectl(*apply, given=json.dumps({**pod, "spec": spec}))
    told = shop.cluster.refused(*apply, given=json.dumps({**pod, "spec": spec | harm}))
    assert "violates PodSecurity" in told


def test_from_outside_its_namespace_only_the_gateway_of_the_shop_is_reached(shop):
    assert shop.inside(CONNECT, "nginx.shop", "80").strip() == "connected"
    closed = [
        (f"{name}.shop", port) for name, port in zip(SERVICES, ("5001", "5002", "5003", "5004", "5005"), strict=True)
    ]
    closed += [
        ("order-db.shop", "5432"),
        ("collector.shop-telemetry", "4318"),
        ("embedded-backend.shop-telemetry", "3100"),
    ]
    reached = [target for target in closed if shop.inside(CONNECT, *target).strip() == "connected"]
    if len(reached) == len(closed):
        pytest.skip("this cluster's network enforces no NetworkPolicies")
    assert reached == []


def test_no_service_reaches_what_it_does_not_need(shop):
    def from_order_service(*target):
        return shop.cluster.kubectl(
            "-n",
            "shop",
            "exec",
            "deployment/order-service",
            "-c",
            "order-service",
            "--",
            "python",
            "-c",
            CONNECT,
            *target,
        ).strip()

    assert from_order_service("payment-service", "5005") == "connected"
    if from_order_service("prometheus.shop-telemetry", "9090") == "connected":
        pytest.skip("this cluster's network enforces no NetworkPolicies")
    assert (
        from_order_service("user-service", "5002") != "connected"
    )  # refused or not answered, as the network plugin has it
    assert from_order_service("nginx", "80") != "connected"  # refused or not answered, as the network plugin has it


@pytest.mark.parametrize("service", [*SERVICES, "nginx"])
def test_a_pod_has_no_token_of_kubernetes(shop, service):
    (pod, *_) = shop.pods(service)
    told = shop.cluster.refused(
        *("-n", "shop", "exec", pod, "-c", service, "--"),
        *("ls", "/var/run/secrets/kubernetes.io/serviceaccount"),
    )
    assert "No such file" in told


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_the_api_server_takes_all_that_an_overlay_makes(shop, overlay):
    made = list(yaml.safe_load_all(shop.cluster.kubectl("kustomize", str(OVERLAYS / overlay))))
    assert len(made) > 60
    may_make_secrets = [each["kind"] for each in made if each["metadata"]["name"].startswith("make-secrets")]
    assert bool(may_make_secrets) == (overlay == "local")  # production's Secrets come from elsewhere
    for each in made:
        kubernetes_validate.validate(each, NEWEST, strict=True)
        if each["kind"] == "Job":
            each["metadata"]["name"] += "-again"  # those of `local` are there, and a Job cannot be changed
    told = shop.cluster.attempt("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(made), seconds=120)
    assert told.returncode == 0, told.stderr
    assert "Warning" not in told.stderr, told.stderr  # of Pod Security, which refuses pods and not what makes them
    assert len(told.stdout.splitlines()) == len(made)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_api_server_takes_the_examples_of_kinds_that_it_knows(shop, example):
    for each in yaml.safe_load_all(example.read_text()):
        if each["metadata"]["namespace"] not in NAMESPACES:
            each["metadata"]["namespace"] = "shop"  # that of the stores, which is not here
        told = shop.cluster.attempt("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump(each))
        unknown = each["kind"] in NOT_KUBERNETES and f'no matches for kind "{each["kind"]}"' in told.stderr
        assert told.returncode == 0 or unknown, told.stderr


def test_images_that_cannot_be_had_are_named_in_a_sentence(shop):
    lacking = yaml.safe_load_all(VISITOR.replace("shop/product-service:dev", "shop/not-built:dev"))
    (pod,) = [each for each in lacking if each["kind"] == "Pod"]
    pod["metadata"]["name"] = "lacking"
    shop.cluster.kubectl("apply", "-f", "-", given=yaml.safe_dump(pod))

    def complaint():
        try:
            shop.cluster.check_images(VISITORS)
        except NoClusterError as error:
            return str(error)
        return None

    try:
        told = eventually(complaint, 60, pause=0.5)
        assert told.startswith("The cluster has not got, and cannot pull, the images shop/not-built:dev: build them")
    finally:
        shop.cluster.kubectl("-n", VISITORS, "delete", "pod", "lacking")


def test_what_was_applied_is_what_the_files_say(shop):
    shop.cluster.kubectl("diff", "-k", str(LOCAL))  # fails where there is a difference
