"""Faults in Docker Compose: switched in the file that the services share, while they run."""

import pytest

from scenarios import flags
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


def test_a_fault_counts_without_a_restart_and_is_over_when_it_is_off(shop, token, switch):
    assert shop.placed(token)[0] == 201
    assert "payment-down (on)" in switch("payment-down=on")
    eventually(lambda: shop.placed(token)[0] == 202, 10)
    status, order = shop.placed(token)
    assert (status, order["status"]) == (202, "PENDING")
    assert "On: nothing" in switch("payment-down=off")
    eventually(lambda: shop.placed(token)[0] == 201, 10)
    eventually(lambda: shop.gateway.get(f"/orders/{order['id']}", token).json()["status"] == "PAID", 60)
    file = shop.clone / "scenarios" / "flags" / "flags.json"
    assert file.read_text() == flags.DEFAULT.read_text()
