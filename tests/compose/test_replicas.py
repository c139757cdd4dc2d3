"""While replicas are replaced, the gateway loses no request: with two nobody notices, with one new requests wait."""

import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import cycle

import pytest
import requests

from tests.compose.composed import SERVICES, SHOP_FILE
from tests.fixtures.books import balance
from tests.fixtures.services import eventually, new_session

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

ORDER = ("POST", "/orders/")
# A replica that takes no connections: nobody accepts what is in its queue, which is full, so the system drops the rest.
DEAF = """
import signal, socket
deaf = socket.create_server(("0.0.0.0", 5003), backlog=0)
queue = [socket.socket() for _ in range(3)]
for one in queue:
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", 5003))
print("deaf", flush=True)
signal.pause()
"""
# By default 1 s, which an answer also takes where the machine is busy with replacing containers. What is lost gets none
# in 5 s either.
PATIENT = """
services:
  order-service:
    environment:
      PRODUCT_TIMEOUT_SECONDS: "5"
"""
PAUSE_SECONDS = 0.1  # or the machine would be too busy to replace containers
VISITS = [ORDER, ("GET", "/orders/"), ("GET", "/products/1"), ("GET", "/users/me"), ("GET", "/auth/validate")]


class Visitor(threading.Thread):
    """Asks for one thing after the other, without a second try, and orders without a key: nothing may be sent twice."""

    def __init__(self, shop, token, visits):
        super().__init__(daemon=True)
        self._root, self._token, self._visits = shop.gateway.root, token, visits
        self.stopping = threading.Event()
        self.answers = []

    def run(self):
        with new_session() as session:
            session.headers["Authorization"] = f"Bearer {self._token}"
            for method, path in cycle(self._visits):
                if self.stopping.wait(PAUSE_SECONDS):
                    return
                body = {"product_id": 1} if method == "POST" else None
                try:
                    answer = session.request(method, self._root + path, json=body, timeout=20)
                    seen = (answer.status_code, "Retry-After" in answer.headers)
                except requests.RequestException as error:
                    seen = (repr(error), False)
                self.answers.append((method, path, *seen))


@pytest.fixture(scope="module", autouse=True)
def patient(shop):
    """order-service waits for product-service for longer, in this file."""
    (shop.clone / "patient.yml").write_text(PATIENT)
    shop.settings(COMPOSE_FILE=f"{SHOP_FILE}:patient.yml")
    shop.compose("up", "-d", "--wait", seconds=120)
    yield
    shop.settings(COMPOSE_FILE=SHOP_FILE)
    shop.compose("up", "-d", "--wait", seconds=120)


def orders(shop):
    return shop.query("SELECT count(*) FROM orders.orders")[0][0]


@contextmanager
def visited(shop, token, visits=VISITS):
    """Let visitors in during the block; how often which answer was seen is there after it. Checks the books."""
    visitors = [Visitor(shop, token, visits) for _ in range(4)]
    seen = Counter()
    before = orders(shop)

    def answered():
        return sum(len(visitor.answers) for visitor in visitors)

    for visitor in visitors:
        visitor.start()
    try:
        eventually(lambda: answered() > 100, 30)
        yield seen
        after = answered()
        eventually(lambda: answered() > after + 100, 30)
    finally:
        for visitor in visitors:
            visitor.stopping.set()
        for visitor in visitors:
            visitor.join(30)
            assert not visitor.is_alive()
    seen.update(answer for visitor in visitors for answer in visitor.answers)
    placed = sum(times for (*visit, status, _), times in seen.items() if tuple(visit) == ORDER and status in {201, 202})
    assert orders(shop) == before + placed, "an order was placed that its client was not told of, or the reverse"
    balance(shop, [])


def failures(seen):
    """The answers that are no success, and how often they were seen."""
    return {answer: times for answer, times in seen.items() if answer[2] not in {200, 201, 202}}


def assert_none_failed(shop, seen):
    """No request failed; if one did, the services say why."""
    failed, said = failures(seen), []
    if failed:
        lines = shop.compose("logs", "--since", "3m", *SERVICES, "nginx").splitlines()
        said = [line for line in lines if re.search(r'"level": ?"(?:warning|error|critical)"|"status": ?5\d\d', line)]
    assert failed == {}, "\n".join(said[-100:])


def test_a_rollout_replaces_the_only_replica_and_no_request_fails(shop, token):
    before = shop.containers("order-service")
    assert len(before) == 1
    with visited(shop, token) as seen:
        shop.run("make", "rollout", "SERVICE=order-service", "COMPOSE=docker compose", seconds=120)
        shop.wait_until_ready()
    assert_none_failed(shop, seen)
    after = shop.containers("order-service")
    assert len(after) == 1
    assert after != before


@pytest.mark.parametrize("service", ["order-service", "product-service"])
def test_while_the_only_replica_is_replaced_new_requests_are_told_when_to_come_back(shop, token, service):
    with visited(shop, token) as seen:
        shop.compose("up", "-d", "--no-deps", "--force-recreate", service)
        shop.wait_until_ready()
    assert failures(seen)
    assert {answer[2:] for answer in failures(seen)} == {(503, True)}, failures(seen)


def test_a_replaced_gateway_comes_back_and_the_books_balance(shop, token):
    shop.compose("up", "-d", "--no-deps", "--force-recreate", "nginx")
    shop.wait_until_ready()
    shop.order(token)
    balance(shop, [])


@pytest.fixture(scope="module")
def doubled(shop):
    """Two replicas of every service, until the end of this file; so tests that want one stand above."""

    def scale(replicas):
        scales = [part for service in SERVICES for part in ("--scale", f"{service}={replicas}")]
        shop.compose("up", "-d", "--wait", "--no-recreate", *scales, seconds=120)

    scale(2)
    time.sleep(2)  # the gateway asks for addresses once a second
    yield shop
    scale(1)


@pytest.mark.parametrize("service", SERVICES)
def test_one_of_two_replicas_is_restarted_and_no_request_fails(doubled, token, service):
    with visited(doubled, token) as seen:
        replica = doubled.containers(service)[0]
        doubled.run("docker", "stop", replica)
        doubled.run("docker", "start", replica)
        doubled.wait_until_ready()
    assert_none_failed(doubled, seen)


@contextmanager
def none_left_alone(shop, service):
    """Have the gateway ask each replica of the service, also those that it just could not reach."""
    file = shop.clone / "nginx/compose/upstreams.conf"
    before = file.read_text()
    recreate = ("up", "-d", "--no-deps", "--force-recreate", "--wait", "nginx")
    changed, times = re.subn(rf"(server {service}:\d+ resolve) fail_timeout=4s;", r"\1 max_fails=0;", before)
    assert times == 1
    try:
        file.write_text(changed)
        shop.compose(*recreate)
        yield
    finally:
        file.write_text(before)
        shop.compose(*recreate)


def test_a_replica_that_goes_while_the_gateway_waits_for_it_costs_no_request(doubled, token):
    (network, *_) = doubled.inspect("product-service")["NetworkSettings"]["Networks"]
    options = ["--network", network, "--init", "--entrypoint", "python"]
    deaf = doubled.run("docker", "run", "-d", *options, "devopsmicroservices-init", "-c", DEAF).strip()
    waited = r'"status":200,.*"upstream_tries_s":"1\.'

    def logged():
        return doubled.compose("logs", "--no-log-prefix", "nginx")

    try:
        eventually(lambda: "deaf" in doubled.run("docker", "logs", deaf), 30)
        doubled.run("docker", "network", "disconnect", network, deaf)
        doubled.order(token)  # or there may be no books to check
        with none_left_alone(doubled, "product-service"):
            with visited(doubled, token, [("GET", "/products/1")]) as seen:
                doubled.run("docker", "network", "connect", "--alias", "product-service", network, deaf)
                eventually(lambda: re.search(waited, logged()), 30, pause=0.1)
                doubled.run("docker", "network", "disconnect", network, deaf)
            log = logged()
    finally:
        doubled.run("docker", "rm", "--force", deaf)
    assert_none_failed(doubled, seen)
    assert re.search(r'"status":200,.*"upstream_tries_s":"1[^"]* : ', log), "nobody waited while the replica went"
