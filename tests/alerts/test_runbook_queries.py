"""What the runbooks tell the reader to ask is asked, of all that can be asked it, the real Loki too."""

import time

import pytest

from tests.alerts.runbooks import all_blocks
from tests.fixtures.services import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def clients(shop):
    found = {"prometheus": Client(shop.prometheus_url), "loki": Client(shop.loki_url)}
    shop.gateway.post("/orders/", {"product_id": 1}, shop.login())
    yield found
    for client in found.values():
        client.session.close()


@pytest.mark.parametrize(("page", "query"), all_blocks("promql"))
def test_prometheus_answers(clients, page, query):
    answer = clients["prometheus"].get("/api/v1/query", params={"query": query})
    assert answer.status_code == 200, answer.text


def asked(loki, query):
    now = time.time()
    window = {"start": int((now - 300) * 1e9), "end": int(now * 1e9), "step": "15s", "limit": 100}
    answer = loki.get("/loki/api/v1/query_range", params={"query": query, **window})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_the_embedded_backend_answers(clients, page, query):
    asked(clients["loki"], query)


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_the_real_loki_answers(real_loki, page, query):
    asked(real_loki.api, query)


@pytest.mark.parametrize(("page", "query"), all_blocks("sql"))
def test_the_database_answers(shop, page, query):
    shop.query(query)
