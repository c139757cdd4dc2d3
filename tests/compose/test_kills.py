"""Each container is killed while orders are placed: the stack heals by itself, and the books balance."""

import pytest

from tests.compose.composed import LONG_RUNNING
from tests.fixtures.books import under_load

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_killed_container_comes_back_and_the_books_balance(shop, service):
    before = shop.inspect(service)
    under_load(shop, lambda: shop.kill(service))
    after = shop.inspect(service)
    assert after["Id"] == before["Id"]
    assert after["RestartCount"] > before["RestartCount"]
