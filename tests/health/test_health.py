"""The sign-off for a running stack: every part is well, and one order leaves its marks. Run by `make health`."""

import pytest

from observability.contract import check_trace, load
from tests.fixtures.services import eventually

PREFIXES = {"auth": "auth", "user": "users", "product": "products", "order": "orders", "payment": "payments"}


@pytest.fixture(scope="module")
def order(running):
    """Place an order: (its answer, its trace id, how many were counted before it)."""
    login = running.gateway.post("/auth/login", {"username": "admin", "password": "password"})
    assert login.status_code == 200, "the demo login does not work: was SEED_DEMO_ADMIN=false?"
    before = running.services["order"].metric("orders_total", status="PAID")
    answer = running.gateway.post("/orders/", {"product_id": 1}, login.json()["token"])
    return answer, answer.headers["traceresponse"].split("-")[1], before


def test_the_gateway_is_well(running):
    assert running.gateway.get("/healthz").status_code == 200


@pytest.mark.parametrize("service", PREFIXES)
def test_a_service_is_alive_and_ready(running, service):
    assert running.services[service].get("/healthz").status_code == 200
    assert running.services[service].get("/readyz").status_code == 200


@pytest.mark.parametrize("service", PREFIXES)
def test_a_service_is_reached_through_the_gateway(running, service):
    assert running.gateway.get(f"/{PREFIXES[service]}/openapi.json").json()["info"]["title"] == f"{service}-service"


def test_an_order_is_paid(order):
    answer, _, _ = order
    assert answer.status_code == 201
    assert answer.json()["status"] == "PAID"


def test_the_order_is_a_log_line_of_its_trace(running, order):
    answer, trace_id, _ = order

    def created():
        return [line for line in running.log_lines("order-service", trace_id) if line["event"] == "order.created"]

    assert eventually(created)[0]["order_id"] == answer.json()["id"]


def test_the_order_is_counted(running, order):
    _, _, before = order
    assert running.services["order"].metric("orders_total", status="PAID") > before


def test_the_order_is_a_complete_trace(backends, order):
    _, trace_id, _ = order

    def complete():
        spans = backends.trace(trace_id)
        return spans and not check_trace(load(), "order", spans) and spans

    spans = eventually(complete, pause=0.1)
    assert {span.service for span in spans} >= {"nginx", "order-service", "product-service", "payment-service"}


@pytest.mark.parametrize("service", ["nginx", "order-service", "product-service", "payment-service"])
def test_the_order_is_found_in_the_log_search_by_its_trace(running, backends, order, service):
    _, trace_id, _ = order
    query = f'{{service_name="{service}"}} | trace_id="{trace_id}"'
    lines = eventually(lambda: backends.lines(query), pause=0.1)
    assert {line["trace_id"] for line in lines} == {trace_id}
    completed = eventually(lambda: backends.lines(f'{query} | json | event="request.completed"'), pause=0.1)
    assert [line["service"] for line in completed] == [service]


def test_the_order_is_counted_in_prometheus(prometheus, order):
    _, _, before = order
    query = 'sum(orders_total{job="order-service", status="PAID"})'
    eventually(lambda: any(value > before for _, value in prometheus.query(query)), 20, pause=0.2)


def test_every_target_of_prometheus_is_up(prometheus):
    def all_up():
        up = {labels["job"]: value for labels, value in prometheus.query("min by (job) (up)")}
        return up.keys() >= {"nginx", *(f"{name}-service" for name in PREFIXES)} and set(up.values()) == {1}

    eventually(all_up, 20, pause=0.2)
