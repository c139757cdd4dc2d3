"""Each part is killed under load, and the books balance: no order lost, none charged twice, none left PENDING."""

import os
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, wait

import psutil
import pytest
import requests

from tests.fixtures.services import eventually

pytestmark = pytest.mark.slow

PARTS = ["order-db", "auth-service", "user-service", "product-service", "order-service", "payment-service", "nginx"]
ENOUGH = 40  # orders placed before the kill, and again after it


class Shopper(threading.Thread):
    """Places one order after another, each until it is answered: what a client with a key can do."""

    def __init__(self, stack, token):
        super().__init__(daemon=True)
        self._stack, self._token = stack, token
        self._stopping = threading.Event()
        self.placed = {}
        self.failures = 0
        self.surprises = []

    def run(self):
        with requests.Session() as session:
            while not self._stopping.is_set():
                key = str(uuid.uuid4())
                while not self._place(session, key):
                    if self._stopping.wait(0.05):
                        return

    def finish(self):
        self._stopping.set()
        self.join(30)
        assert not self.is_alive()

    def _place(self, session, key):
        try:
            answer = session.post(
                f"{self._stack.gateway.root}/orders/",
                json={"product_id": 1},
                headers={"Authorization": f"Bearer {self._token}", "Idempotency-Key": key},
                timeout=20,
            )
        except requests.RequestException:
            self.failures += 1
            return False
        if answer.status_code in {200, 201, 202}:
            self.placed[key] = answer.json()["id"]
            return True
        self.failures += 1
        if answer.status_code < 500:
            self.surprises.append((answer.status_code, answer.text))
        return False


def balance(stack, shoppers):
    """Check the books: what clients were told, the orders and the payments say the same."""
    eventually(
        lambda: stack.query("SELECT count(*) FROM orders.orders WHERE status = 'PENDING'") == [(0,)], 45, pause=0.5
    )
    told = {}
    for shopper in shoppers:
        assert not shopper.surprises, shopper.surprises[:3]
        told |= shopper.placed
    kept = dict(stack.query("SELECT idempotency_key, id FROM orders.orders WHERE idempotency_key IS NOT NULL"))
    assert told.items() <= kept.items(), "a client was told of an order that is not there"
    assert stack.query("SELECT DISTINCT status FROM orders.orders") == [("PAID",)]
    unbalanced = stack.query(
        "SELECT o.id, count(p.id) FROM orders.orders o FULL JOIN payments.payments p ON p.order_id = o.id"
        " GROUP BY o.id HAVING count(p.id) <> 1 OR count(o.id) <> 1 OR bool_or(p.id <> o.payment_id)"
    )
    assert unbalanced == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.fixtures.stack import LocalStack  # noqa: PLC0415

    running = LocalStack(tmp_path_factory.mktemp("kills"))
    running.up()
    yield running
    running.down()


def under_load(shop, harm):
    """Do harm while shoppers shop, wait until the shop has healed and sold some more, and check the books."""
    token = shop.login()
    shoppers = [Shopper(shop, token) for _ in range(4)]
    for shopper in shoppers:
        shopper.start()

    def sold():
        return sum(len(shopper.placed) for shopper in shoppers)

    try:
        eventually(lambda: sold() >= ENOUGH, 30)
        harm()
        shop.wait_until_ready(60)
        after = sold()
        eventually(lambda: sold() >= after + ENOUGH, 30)
    finally:
        for shopper in shoppers:
            shopper.finish()
    balance(shop, shoppers)


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_comes_back_and_the_books_balance(shop, part):
    pid = shop.pid(part)
    under_load(shop, lambda: os.kill(pid, signal.SIGKILL))
    assert shop.pid(part) != pid


@pytest.mark.parametrize("part", ["order-service", "payment-service"])
def test_a_killed_worker_comes_back_and_the_books_balance(shop, part):
    (worker,) = psutil.Process(shop.pid(part)).children()
    under_load(shop, worker.kill)


def test_a_payment_killed_in_mid_charge_is_made_once(own_stack):
    shop = own_stack(PAYMENT_LATENCY_MS="1500")
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


def test_orders_of_an_outage_are_paid_within_30_seconds_of_its_end(own_stack):
    shop = own_stack()
    token = shop.login()
    pid = shop.pid("payment-service")
    for process in (psutil.Process(pid), *psutil.Process(pid).children()):
        process.suspend()
    answers = [shop.gateway.post("/orders/", {"product_id": 1}, token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    for process in (*psutil.Process(pid).children(), psutil.Process(pid)):
        process.resume()
    eventually(
        lambda: shop.query("SELECT count(*) FROM orders.orders WHERE status = 'PENDING'") == [(0,)], 30, pause=0.2
    )
    assert shop.query("SELECT status, count(*) FROM orders.orders GROUP BY status") == [("PAID", 3)]
    assert shop.query("SELECT count(*) FROM payments.payments") == [(3,)]


def test_while_payment_is_frozen_orders_wait_for_it_and_the_rest_of_the_shop_goes_on(own_stack):
    shop = own_stack()
    token = shop.login()
    path = shop.gateway.post("/orders/", {"product_id": 1}, token).headers["Location"]
    pid = shop.pid("payment-service")
    frozen = [psutil.Process(pid), *psutil.Process(pid).children()]
    for process in frozen:
        process.suspend()
    try:
        with ThreadPoolExecutor(64) as pool:
            placing = [pool.submit(shop.gateway.post, "/orders/", {"product_id": 1}, token) for _ in range(64)]
            wait(placing, timeout=0.5)
            read = shop.gateway.get(path, token)
            health = shop.service("order-service").get("/healthz")
            answers = [order.result() for order in placing]
    finally:
        for process in reversed(frozen):
            process.resume()
    assert (read.status_code, health.status_code) == (200, 200)
    assert read.elapsed.total_seconds() < 3
    assert health.elapsed.total_seconds() < 1
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 8
    kept = sum(answer.status_code == 202 for answer in answers)
    eventually(lambda: shop.query(f"SELECT count(*) = {kept + 1} FROM orders.orders WHERE status = 'PAID'")[0][0], 40)
