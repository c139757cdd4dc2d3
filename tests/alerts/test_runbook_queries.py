"""What the runbooks tell the reader to ask is asked of all that can answer it; of the real Loki where there is one."""

import functools
import time

import pytest

from tests.alerts.runbooks import EMPTY_WHEN_WELL, all_blocks, empty_when_well
from tests.fixtures import services
from tests.fixtures.real import is_there, running_real
from tests.fixtures.services import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

eventually = functools.partial(services.eventually, seconds=90, pause=0.5)  # some rules are evaluated every 30 s


@pytest.fixture(scope="module")
def clients(shop):
    found = {"prometheus": Client(shop.prometheus_url), "loki": Client(shop.loki_url)}
    token = shop.login()
    for _ in range(3):  # rates want two scrapes
        scraped = scrapes(found["prometheus"])
        shop.gateway.post("/orders/", {"product_id": 1}, token)
        shop.login()
        eventually(lambda before=scraped: scrapes(found["prometheus"]) > before)
    yield found
    for client in found.values():
        client.session.close()


def scrapes(prometheus):
    """How often Prometheus has fetched the metrics of order-service."""
    query = 'count_over_time(up{job="order-service"}[1h])'
    found = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


@pytest.mark.parametrize(("page", "query"), all_blocks("promql"))
def test_prometheus_answers(clients, page, query):
    def found():
        answer = clients["prometheus"].get("/api/v1/query", params={"query": query})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"] or empty_when_well(query)

    eventually(found)


def asked(loki, query):
    now = time.time()
    window = {"start": int((now - 300) * 1e9), "end": int(now * 1e9), "step": "15s", "limit": 100}
    answer = loki.get("/loki/api/v1/query_range", params={"query": query, **window})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["result"]


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_the_embedded_backend_answers(clients, page, query):
    eventually(lambda: asked(clients["loki"], query) or empty_when_well(query))


if is_there("loki"):

    @pytest.fixture(scope="module")
    def real_loki(tmp_path_factory):
        with running_real("loki", tmp_path_factory.mktemp("loki")) as real:
            yield real.api

    @pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
    def test_the_real_loki_answers(real_loki, page, query):
        asked(real_loki, query)  # which has no lines of a shop


@pytest.mark.parametrize(("page", "query"), all_blocks("sql"))
def test_the_database_answers(clients, shop, page, query):
    assert shop.query(query) or empty_when_well(query)


@pytest.mark.parametrize("part", EMPTY_WHEN_WELL)
def test_what_may_be_empty_is_still_asked_for(part):
    assert [query for kind in ("promql", "logql", "sql") for _, query in all_blocks(kind) if part in query]
