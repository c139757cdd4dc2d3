"""What the runbooks tell the reader to ask is asked of all that can answer it; of the real Loki where there is one."""

import time

import pytest

from tests.alerts.runbooks import all_blocks
from tests.fixtures.real import is_there, running_real
from tests.fixtures.services import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def clients(shop):
    found = {"prometheus": Client(shop.prometheus_url), "loki": Client(shop.loki_url)}
    shop.gateway.post("/orders/", {"product_id": 1}, shop.login())
    yield found
    for client in found.values():
        client.session.close()


@pytest.fixture(scope="module", params=["embedded", *(["real"] if is_there("loki") else [])])
def loki(request, clients, tmp_path_factory):
    """The embedded backend's Loki, and the real one where there is one."""
    if request.param == "embedded":
        yield clients["loki"]
    else:
        with running_real("loki", tmp_path_factory.mktemp("loki")) as real:
            yield real.api


@pytest.mark.parametrize(("page", "query"), all_blocks("promql"))
def test_prometheus_answers(clients, page, query):
    answer = clients["prometheus"].get("/api/v1/query", params={"query": query})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_loki_answers(loki, page, query):
    now = time.time()
    window = {"start": int((now - 300) * 1e9), "end": int(now * 1e9), "step": "15s", "limit": 100}
    answer = loki.get("/loki/api/v1/query_range", params={"query": query, **window})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("page", "query"), all_blocks("sql"))
def test_the_database_answers(shop, page, query):
    shop.query(query)
