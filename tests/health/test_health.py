"""The sign-off for a running stack: every part is well, and one order leaves its marks. Run by `make health`."""

import pytest

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
