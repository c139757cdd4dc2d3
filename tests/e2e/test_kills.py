"""Each part is killed under load, and the books balance: no order lost, none charged twice, none left PENDING."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import psutil
import pytest

from tests.fixtures.books import under_load
from tests.fixtures.services import eventually

pytestmark = pytest.mark.slow

PARTS = ["order-db", "auth-service", "user-service", "product-service", "order-service", "payment-service", "nginx"]
WATCHERS = ["embedded-backend", "gateway-telemetry", "prometheus"]


ROUNDS = range(int(os.environ.get("KILL_ROUNDS", "1")))
"""How often each is killed; `make kills` does it often."""


@pytest.mark.parametrize("_round", ROUNDS)
@pytest.mark.parametrize("part", [*PARTS, *WATCHERS])
def test_a_killed_part_comes_back_and_the_books_balance(shop, part, _round):
    pid = shop.pid(part)
    under_load(shop, lambda: os.kill(pid, signal.SIGKILL))
    assert shop.pid(part) != pid


@pytest.mark.parametrize("_round", ROUNDS)
@pytest.mark.parametrize("part", ["order-service", "payment-service"])
def test_a_killed_worker_comes_back_and_the_books_balance(shop, part, _round):
    (worker,) = psutil.Process(shop.pid(part)).children()
    under_load(shop, worker.kill)


def test_a_payment_killed_in_mid_charge_is_made_once(own_stack):
    shop = own_stack(TELEMETRY="off")  # or Prometheus' requests would count as active ones
    shop.fault("payment-slow", "strong")
    eventually(lambda: shop.service("payment-service").metric("simulated_faults", fault="payment-slow"))
    token = shop.login()
    answers = []
    placing = threading.Thread(
        target=lambda: answers.append(shop.gateway.post("/orders/", {"product_id": 1}, token)), daemon=True
    )
    pid = shop.pid("payment-service")
    placing.start()
    eventually(lambda: shop.service("payment-service").metric("http_server_active_requests") > 1)
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    placing.join(20)
    assert answers[0].status_code == 202
    path = answers[0].headers["Location"]
    eventually(lambda: shop.gateway.get(path, token).json()["status"] == "PAID", 40, pause=0.2)
    assert time.monotonic() - killed_at < 40
    order_id = answers[0].json()["id"]
    assert shop.query(f"SELECT outcome FROM payments.payments WHERE order_id = {order_id}") == [("PAID",)]


def orders(shop, status):
    """How many there are, and how many charges."""
    of_status = f"SELECT count(*) FROM orders.orders WHERE status = '{status}'"
    return shop.query(f"SELECT ({of_status}), (SELECT count(*) FROM payments.payments)")[0]


def test_orders_of_an_outage_are_paid_within_30_seconds_of_its_end(shop):
    token = shop.login()
    paid, charged = orders(shop, "PAID")
    with shop.frozen("payment-service"):
        answers = [shop.gateway.post("/orders/", {"product_id": 1}, token) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202] * 3
    eventually(lambda: orders(shop, "PENDING")[0] == 0, 30, pause=0.2)
    assert orders(shop, "PAID") == (paid + 3, charged + 3)


def test_while_payment_is_frozen_orders_wait_for_it_and_the_rest_of_the_shop_goes_on(shop):
    token = shop.login()
    paid, _ = orders(shop, "PAID")
    path = shop.gateway.post("/orders/", {"product_id": 1}, token).headers["Location"]
    with shop.frozen("payment-service"), ThreadPoolExecutor(64) as pool:
        placing = [pool.submit(shop.gateway.post, "/orders/", {"product_id": 1}, token) for _ in range(64)]
        wait(placing, timeout=0.5)
        read = shop.gateway.get(path, token)
        health = shop.service("order-service").get("/healthz")
        answers = [order.result() for order in placing]
    assert (read.status_code, health.status_code) == (200, 200)
    assert read.elapsed.total_seconds() < 3
    assert health.elapsed.total_seconds() < 1
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 8
    kept = sum(answer.status_code == 202 for answer in answers)
    eventually(lambda: orders(shop, "PAID")[0] == paid + 1 + kept, 40)
