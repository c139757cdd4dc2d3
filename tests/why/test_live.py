"""A shop in which one thing after the other breaks while people use it: `make why` names it, and only while it lasts.

The scenarios ask it about many more: `tests/scenarios`.
"""

import contextlib
import json
import time
from datetime import datetime

import pytest
import requests

from observability.story.apis import Jaeger, Loki, Prometheus
from observability.story.window import Window
from tests.alerts.conftest import Crowd, Saboteur
from tests.fixtures.services import eventually
from tests.fixtures.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("why")]

USUAL = 60  # orders before the first fault: what later is bad beside them
SEEN_SECONDS = 150  # `make why` needs several tries on a machine on which its questions take long


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    running = LocalStack(tmp_path_factory.mktemp("why"), LOGIN_RATE="200r/s", CLIENT_CONNECTIONS="10000")
    running.up()
    try:
        yield running
    finally:
        running.down()


@pytest.fixture(scope="module")
def crowd(shop):
    requests = [("POST", "/orders/", {"product_id": 1}), ("GET", "/products/3", None), ("GET", "/orders/", None)]
    with Crowd(shop, 3, 0.4, *requests):
        asked = {"service": "nginx", "operation": "POST /orders/", "limit": str(USUAL)}
        eventually(lambda: len(Jaeger(shop.jaeger_url).search(asked)) == USUAL, 120, pause=1)
        yield


def look(shop, since):
    answer, told = attempt(shop, since)
    assert answer is not None, told
    return answer


def attempt(shop, since):
    """The answer, None if nothing answered in time, and what was said of that."""
    done = shop._run("observability.why", "--json", "--since", since)
    return json.loads(done.stdout) if done.returncode == 0 else None, done.stderr


class Slow(Saboteur):
    def frozen_whole(self, part):
        """With its workers, which would go on without the first process."""
        return self._shop.frozen(part)

    @contextlib.contextmanager
    def slow_payment(self):
        self._shop.fault("payment-slow")
        try:
            yield
        finally:
            self._shop.fault("payment-slow", "off")


@pytest.mark.parametrize(
    ("fault", "service", "operation"),
    [
        (lambda saboteur: saboteur.slow_payment(), "payment-service", "decide charge"),
        (lambda saboteur: saboteur.frozen_whole("product-service"), "product-service", None),
        (lambda saboteur: saboteur.stopped("order-db"), "order-db", None),
    ],
    ids=["slow payment", "frozen product-service", "no database"],
)
def test_the_cause_comes_first_while_it_lasts_and_is_over_afterwards(shop, crowd, fault, service, operation):
    def named(seconds):
        answer = look(shop, f"{max(int(seconds), 10)}s")
        first = answer["causes"][0] if answer["state"] == "wrong" else {}
        return first.get("service") == service and operation in {None, first["operation"]}

    with fault(Slow(shop)):
        begin = time.monotonic()
        eventually(lambda: named(time.monotonic() - begin + 3), SEEN_SECONDS, pause=1)
    shop.wait_until_ready(60)
    eventually(lambda: not named(15), SEEN_SECONDS, pause=1)


def queries(answer):
    """All that an answer prints, with what says of each whom it asks."""
    told = [one for cause in answer["causes"] for one in cause["because"]] + answer["notes"]
    asked = {(one["backend"], one["query"]) for one in told}
    asked |= {("Prometheus", alert["measure"]) for alert in answer["alerts"] if alert["says"]}
    asked |= {("Jaeger", query) for query in answer["pair"]["queries"]}
    return asked | {("Loki", answer["lines_query"])}


def test_each_query_that_it_prints_can_be_asked_of_the_stack_and_is_answered_with_data(shop, crowd):
    def ask(backend, query, at):
        if backend == "Jaeger":
            return requests.get(query, timeout=10).json()["data"]
        if backend == "Prometheus":
            return Prometheus(shop.prometheus_url).now(query, at)
        if "count_over_time" in query:
            return Loki(shop.loki_url).count(query, at)
        return Loki(shop.loki_url).query(query, Window(at - 600, at + 60))["result"]

    def told():
        answer = look(shop, "30s")
        return answer if answer["state"] == "wrong" and answer["pair"] and answer["lines"] else None

    with Slow(shop).slow_payment():
        answer = eventually(told, SEEN_SECONDS, pause=1)
        at = datetime.fromisoformat(answer["at"]).timestamp()
        asked = queries(answer)
        assert {backend for backend, _ in asked} >= {"Jaeger", "Loki"}
        unanswered = [query for backend, query in asked if not ask(backend, query, at)]
    assert unanswered == []
    eventually(lambda: look(shop, "15s")["state"] != "wrong", SEEN_SECONDS, pause=1)


@pytest.mark.parametrize("part", ["embedded-backend", "prometheus"])
def test_of_a_backend_that_is_frozen_it_says_so_within_ten_seconds(shop, crowd, part):
    with Slow(shop).frozen_whole(part):
        took, answers = [], []

        def answered():
            begin = time.monotonic()
            answers.append(attempt(shop, "1m"))
            took.append(time.monotonic() - begin)
            return answers[-1][0]

        # On a busy machine those that are not frozen may be too late, too: it says so, and is asked again.
        answer = eventually(answered, 60, pause=1)
    frozen = "Prometheus's API" if part == "prometheus" else "Jaeger's API"
    assert frozen in " ".join(answer["not_looked_at"])
    assert all(frozen in told for seen, told in answers if seen is None)
    assert answer["seconds"] < 10
    assert max(took) < 20  # with the start of Python
    shop.wait_until_ready(60)


def test_an_answer_comes_within_ten_seconds(shop, crowd):
    begin = time.monotonic()
    assert look(shop, "1m")["seconds"] < 10
    assert time.monotonic() - begin < 20
