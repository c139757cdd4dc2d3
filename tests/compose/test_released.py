"""With a version, Compose runs released images and builds nothing. Here the built ones have a release's names."""

import json

import pytest

from tests.compose.composed import ONE_SHOTS, SERVICES

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

REGISTRY = "registry.example/shop"  # a name that nobody can have
RELEASE = {"SHOP_VERSION": "0.0.0", "SHOP_REGISTRY": REGISTRY}


@pytest.fixture
def released(shop):
    """Images under the names of a release, for one test; afterwards the stack is as it was."""
    services = json.loads(shop.compose("config", "--format", "json", **RELEASE))["services"]
    ours = {name: part["image"] for name, part in services.items() if "build" in part}
    for name, image in ours.items():
        shop.run("docker", "tag", f"devopsmicroservices-{name}", image)
    try:
        yield ours
    finally:
        shop.compose("up", "-d", "--wait", seconds=200)
        shop.run("docker", "rmi", *set(ours.values()))


def test_a_release_runs_without_a_build_and_keeps_the_orders(shop, token, released):
    order_id = shop.order(token)
    assert set(released) == {*SERVICES, *ONE_SHOTS}
    shop.compose("up", "-d", "--no-build", "--wait", seconds=200, **RELEASE)
    running = {name: shop.inspect(name)["Config"]["Image"] for name in released}
    assert running == released
    assert shop.gateway.get(f"/orders/{order_id}", shop.login()).status_code == 200


def test_a_release_that_cannot_be_pulled_is_not_built_with_no_build(shop):
    missing = {**RELEASE, "SHOP_VERSION": "0.0.1"}
    said = shop.fail("docker", "compose", "up", "-d", "--no-build", "product-service", seconds=120, **missing)
    assert f"{REGISTRY}/product-service:0.0.1" in said
    assert shop.inspect("product-service")["Config"]["Image"] == "devopsmicroservices-product-service"
