"""Each alert that is not about a budget fires in a running shop for its fault, and resolves; none fires before."""

from pathlib import Path

import pytest
import yaml

from tests.alerts.conftest import Crowd, Drama, Saboteur
from tests.alerts.runbooks import all_blocks, blocks
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RULES = Path(__file__).parents[2] / "observability" / "prometheus" / "rules" / "alerts.yml"
ALERTS = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


UNSEEN = ("SpansDropped", "TelemetryQueueNearlyFull", "TelemetryDown", "LogLinesLost", "RequestsLimited")
ENOUGH_TRAFFIC = "count_over_time((shop:customers_answered:rate1m >= 0.2)[9m:15s])"
CROWDED = ("DatabasePoolNearLimit", "DatabasePoolWaits", "ErrorSpike")


def buyers(shop):
    """Few, so that what an outage leaves PENDING is soon settled."""
    return Crowd(shop, 2, 0.3, ("POST", "/orders/", {"product_id": 1}))


def readers(shop):
    """Many, who make spans, and want connections to the database."""
    return Crowd(shop, 24, 0.1, ("GET", "/orders/", None), ("GET", "/products/1", None))


@pytest.fixture(scope="module")
def drama(shop):
    """All faults, one after the other; those that do not disturb each other at once."""
    played, broken = Drama(shop), Saboteur(shop)

    def ask(alert):
        """What the person who was called sees: the page's queries, now."""
        if alert not in ("ServiceDown", "DatabaseDown"):  # whose database is down
            for query in blocks(alert, "sql", section="How to see it"):
                played.rows[query] = shop.query(query)
        queries = blocks(alert, "promql", section="How to see it")
        answers = [
            (query, played.watcher.prometheus.get("/api/v1/query", params={"query": query})) for query in queries
        ]
        return [(query, answer.json()) for query, answer in answers]

    played.watcher.start()
    try:
        with buyers(shop):
            played.await_health()
            with readers(shop):
                with broken.outage_of_payment():
                    with (
                        broken.frozen("embedded-backend"),
                        broken.nonsense_in_the_access_log(),
                        broken.flood_of_requests(),
                        broken.limited_requests(),
                        played.act(*UNSEEN, ask=ask),
                    ):
                        pass
                    with played.act("PaymentOutage", "OrdersStuckPending", ask=ask):
                        pass
                with broken.orders_locked(), played.act(*CROWDED, ask=ask):
                    pass
            with (
                broken.stopped("product-service"),
                broken.stopped("order-db"),
                played.act("ServiceDown", "DatabaseDown", ask=ask),
            ):
                shop.gateway.post("/auth/login", {"username": "admin", "password": "password"})
            eventually(lambda: shop.command("status").returncode == 0, 60, pause=0.5)
            # NoTraffic wants five minutes of answers before they cease. The buyers get them.
            eventually(lambda: played.value(ENOUGH_TRAFFIC) >= 20, 330, pause=2)
            with broken.stopped("nginx"), played.act("NoTraffic", "GatewayDown", ask=ask):
                pass
            played.await_calm()
            played.ask_for_lines()
    finally:
        played.watcher.stop()
    return played


def test_nothing_fires_in_a_healthy_shop(drama):
    assert not drama.alarms_in_health


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_for_its_fault(drama, alert):
    began, ended = drama.acts[alert]
    assert alert in drama.watcher.between(began, ended + 1)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_resolves_when_its_fault_is_gone(drama, alert):
    assert alert not in drama.watcher.active()


@pytest.mark.parametrize("alert", ALERTS)
def test_its_page_shows_something_while_it_fires(drama, alert):
    for query, answer in drama.answers[alert]:
        assert answer["status"] == "success", (query, answer)
        assert answer["data"]["result"], query


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_the_lines_that_a_page_asks_for_are_there_after_the_faults(drama, page, query):
    assert drama.lines[query], query


@pytest.mark.parametrize("page", ["DatabasePoolWaits", "OrdersStuckPending"])
def test_the_rows_that_a_page_asks_for_are_there_while_it_fires(drama, page):
    for query in blocks(page, "sql", section="How to see it"):
        assert drama.rows[query], query
