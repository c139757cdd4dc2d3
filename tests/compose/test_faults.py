"""Faults in Docker Compose: switched in the file that the services share, while they run."""

import sys

import pytest
import requests

from scenarios import flags
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.fixture
def switch(shop):
    """Type `make fault` as a person would, in the clone; all is off afterwards."""

    def typed(wanted):
        return shop.run(sys.executable, "-m", "scenarios", "fault", wanted)

    yield typed
    typed("all=off")


def placed(shop, token):
    answer = shop.gateway.post("/orders/", {"product_id": 1}, token)
    return answer.status_code, answer.json()


def test_a_fault_counts_without_a_restart_and_is_over_when_it_is_off(shop, token, switch):
    assert placed(shop, token)[0] == 201
    assert "payment-down (on)" in switch("payment-down=on")
    eventually(lambda: placed(shop, token)[0] == 202, 10)
    status, order = placed(shop, token)
    assert (status, order["status"]) == (202, "PENDING")
    assert "On: nothing" in switch("payment-down=off")
    eventually(lambda: placed(shop, token)[0] == 201, 10)
    eventually(lambda: shop.gateway.get(f"/orders/{order['id']}", token).json()["status"] == "PAID", 60)
    file = shop.clone / "scenarios" / "flags" / "flags.json"
    assert file.read_text() == flags.DEFAULT.read_text()


def test_the_consoles_page_switches_where_it_may_write_and_says_so_where_it_may_not(light, token, switch):
    page, own = f"{light.console_url}/faults", {"Origin": light.console_url}
    folder = light.clone / "scenarios" / "flags"
    folder.chmod(0o755)
    if folder.stat().st_uid != 10010:
        assert "CONSOLE_USER" in requests.get(page, timeout=10).text
    folder.chmod(0o777)
    wanted = {"name": "payment-down", "state": "on"}
    assert requests.post(page, wanted, headers=own, timeout=10).status_code == 200
    eventually(lambda: placed(light, token)[0] == 202, 10)
    assert "fault on: " in requests.get(light.console_url, timeout=10).text
    assert "On: nothing" in switch("all=off")  # whoever wrote the file last
    eventually(lambda: placed(light, token)[0] == 201, 10)
