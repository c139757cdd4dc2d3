"""Each container is killed while orders are placed: the stack heals by itself, and the books balance."""

import pytest

from tests.compose.composed import LONG_RUNNING
from tests.fixtures.books import under_load
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_killed_container_comes_back_and_the_books_balance(shop, service):
    before = shop.inspect(service)
    under_load(shop, lambda: shop.kill(service))
    after = shop.inspect(service)
    assert after["Id"] == before["Id"]
    assert after["RestartCount"] > before["RestartCount"]


def test_services_that_start_before_the_database_serve_as_soon_as_it_is_there(shop, token):
    shop.run("docker", "stop", "order-db")
    try:
        shop.compose("restart", "user-service", "order-service", "payment-service")
        eventually(lambda: [line.split()[0] for line in shop.unhealthy()] == ["/order-db"], 30, pause=0.3)
        answer = shop.gateway.post("/orders/", {"product_id": 1}, token)
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    finally:
        shop.run("docker", "start", "order-db")
    eventually(lambda: shop.gateway.get("/orders/", token).status_code == 200, 30, pause=0.2)
    shop.order(token)
    shop.wait_until_ready()
