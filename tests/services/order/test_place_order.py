"""Placing an order, on the wire."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs
from werkzeug import Response

from tests.fixtures.services import eventually
from tests.services.order.conftest import PRODUCT

KEPT = ("id", "sku", "name", "unit_price_minor", "currency")


def test_a_paid_order_is_answered_with_itself_and_its_place(orders, token, rows):
    answer = orders.post("/orders/", {"product_id": 1, "quantity": 2}, token)
    assert answer.status_code == 201
    order = answer.json()
    assert answer.headers["Location"] == f"/orders/{order['id']}"
    assert order["status"] == "PAID"
    assert order["quantity"] == 2
    assert order["payment_id"] == 100
    assert order["created_at"].endswith("Z")
    assert rows() == [(order["id"], "PAID", 2, 7)]
    assert orders.get(answer.headers["Location"], token).json() == order


def test_the_row_keeps_the_product_as_it_was_bought(orders, token, database):
    orders.post("/orders/", {"product_id": 1}, token)
    ((product,),) = database.run("SELECT product FROM orders.orders")
    assert product == {
        "id": 1,
        "sku": "KIT-MUG-001",
        "name": "Stoneware mug",
        "unit_price_minor": 1450,
        "currency": "EUR",
    }


def test_the_charge_is_for_price_times_quantity_under_the_orders_own_key(orders, token, payments):
    order = orders.post("/orders/", {"product_id": 1, "quantity": 3}, token).json()
    (charge,) = payments.charges.items()
    key, body = charge
    assert key == f"order-{order['id']}"
    assert (body["order_id"], body["user_id"], body["amount_minor"], body["currency"]) == (order["id"], 7, 4350, "EUR")


def test_quantity_is_one_unless_given(orders, token):
    assert orders.post("/orders/", {"product_id": 1}, token).json()["quantity"] == 1


def test_a_declined_order_is_402_and_kept(orders, token, payments, rows):
    payments.outcome = "DECLINED"
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 402
    assert answer.headers["Content-Type"] == "application/problem+json"
    order = answer.json()["order"]
    assert order["status"] == "DECLINED"
    assert answer.headers["Location"] == f"/orders/{order['id']}"
    assert rows() == [(order["id"], "DECLINED", 1, 7)]


def test_an_unknown_product_is_404_names_the_id_and_leaves_no_row(orders, token, products, rows):
    products.expect_request("/products/4711").respond_with_data(status=404)
    answer = orders.post("/orders/", {"product_id": 4711}, token)
    assert answer.status_code == 404
    assert "product_id" in answer.json()["detail"]
    assert "4711" in answer.json()["detail"]
    assert rows() == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {**PRODUCT, "id": "1"},
        {**PRODUCT, "id": 2},
        {**PRODUCT, "name": None},
        {**PRODUCT, "name": "a\0b"},
        {**PRODUCT, "unit_price_minor": "1450"},
        {**PRODUCT, "unit_price_minor": 14.5},
        {**PRODUCT, "unit_price_minor": True},
        {**PRODUCT, "unit_price_minor": -1},
        {**PRODUCT, "unit_price_minor": 10**30},
        {**PRODUCT, "currency": "euro"},
        *({name: value for name, value in PRODUCT.items() if name != missing} for missing in KEPT),
    ],
)
def test_an_answer_that_is_no_product_is_503_and_there_is_no_row(orders, token, products, rows, answer):
    products.clear()
    products.expect_request("/products/1").respond_with_json(answer)
    response = orders.post("/orders/", {"product_id": 1}, token)
    assert response.status_code == 503, response.text
    assert "product-service" in response.json()["detail"]
    assert rows() == []


def test_without_product_service_the_answer_is_503_and_there_is_no_row(orders, token, products, rows):
    products.stop()
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert rows() == []


@pytest.mark.parametrize("status", [500, 503])
def test_an_order_stays_pending_when_payment_fails(orders, token, payments, rows, status):
    payments.status = status
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 202
    order = answer.json()
    assert order["status"] == "PENDING"
    assert answer.headers["Location"] == f"/orders/{order['id']}"
    assert rows() == [(order["id"], "PENDING", 1, 7)]


def test_an_order_stays_pending_when_payment_is_not_there(orders, token, payment_peer, rows):
    payment_peer.stop()
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 202
    assert [status for _, status, *_ in rows()] == ["PENDING"]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_order_stays_pending_when_no_token_for_payment_can_be_had(
    orders, token, auth_peer, signer, payments, reconcile, rows, status
):
    """The keys that verify the shopper's token are there: it is the service's own token that is missing."""
    auth_peer.clear()
    auth_peer.expect_request("/auth/.well-known/jwks.json").respond_with_json(signer.jwks)
    auth_peer.expect_request("/internal/token").respond_with_data("", status=status)
    with capture_logs() as events:
        answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 202
    assert [status for _, status, *_ in rows()] == ["PENDING"]
    assert payments.tries == 0
    (left,) = [event for event in events if event["event"] == "order.left_pending"]
    assert left["dependency"] == "auth-service"
    auth_peer.clear()
    auth_peer.expect_request("/internal/token").respond_with_json(
        {"access_token": signer.service_token(), "expires_in": 600}
    )

    def paid():
        reconcile()
        return [status for _, status, *_ in rows()] == ["PAID"]

    eventually(paid)


def test_a_token_that_payment_does_not_take_is_replaced_once(orders, token, auth_peer, payment_peer, payments, rows):
    """The key that signed it may have been withdrawn."""
    shown = []

    def charge(request):
        shown.append(request.headers["Authorization"])
        if len(shown) == 1:
            return Response('{"type": "urn:shop:problem:unauthenticated"}', 401, mimetype="application/problem+json")
        return payments(request)

    payment_peer.clear()
    payment_peer.expect_request("/internal/charges").respond_with_handler(charge)
    assert orders.post("/orders/", {"product_id": 1}, token).status_code == 201
    assert len(shown) == 2
    assert [request.path for request, _ in auth_peer.log].count("/internal/token") == 2
    assert [status for _, status, *_ in rows()] == ["PAID"]


def test_an_order_stays_pending_when_payment_takes_no_token(orders, token, payment_peer, rows):
    payment_peer.clear()
    payment_peer.expect_request("/internal/charges").respond_with_json(
        {"type": "urn:shop:problem:unauthenticated"}, status=401
    )
    assert orders.post("/orders/", {"product_id": 1}, token).status_code == 202
    assert len(payment_peer.log) == 2
    assert [status for _, status, *_ in rows()] == ["PENDING"]
    assert orders.metric("charges_refused_total") == 0


def test_an_order_stays_pending_when_payment_is_too_slow_and_is_asked_once_only(orders, token, payments):
    payments.gate = threading.Event()
    answer = orders.post("/orders/", {"product_id": 1}, token)
    payments.gate.set()
    assert answer.status_code == 202
    assert payments.tries == 1
    assert answer.elapsed.total_seconds() < 3


def test_a_refused_charge_keeps_the_order_and_is_counted(orders, token, payments, rows):
    payments.status = 422
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 202
    assert rows() == [(answer.json()["id"], "PENDING", 1, 7)]
    assert orders.metric("charges_refused_total") == 1


BAD_BODIES = {
    "no product": ({}, "product_id"),
    "unknown field": ({"product_id": 1, "gift": True}, "gift"),
    "quantity 0": ({"product_id": 1, "quantity": 0}, "quantity"),
    "quantity 101": ({"product_id": 1, "quantity": 101}, "quantity"),
    "boolean quantity": ({"product_id": 1, "quantity": True}, "quantity"),
    "boolean product": ({"product_id": True}, "product_id"),
    "text": ({"product_id": "1"}, "product_id"),
    "fraction": ({"product_id": 1.5}, "product_id"),
    "null": ({"product_id": None}, "product_id"),
    "negative": ({"product_id": -1}, "product_id"),
    "beyond the database's range": ({"product_id": 2**31}, "product_id"),
    "beyond any range": ({"product_id": 10**30}, "product_id"),
    "a list": ([1], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body_is_422_and_names_the_field(orders, token, rows, body, field):
    answer = orders.post("/orders/", body, token)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert rows() == []


def test_a_nan_is_named(orders, token):
    answer = orders.post(
        "/orders/", token=token, data='{"product_id": NaN}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_who_has_no_token_learns_nothing_about_the_body(orders):
    answer = orders.post("/orders/", {"product_id": "nonsense"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


# --- Idempotency-Key


def test_the_same_key_and_body_give_the_same_order(orders, token, rows, payments):
    key = {"Idempotency-Key": "abc"}
    first = orders.post("/orders/", {"product_id": 1}, token, headers=key)
    second = orders.post("/orders/", {"product_id": 1, "quantity": 1}, token, headers=key)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(rows()) == len(payments.charges) == 1


def test_the_same_key_with_another_body_is_422(orders, token, rows):
    key = {"Idempotency-Key": "abc"}
    orders.post("/orders/", {"product_id": 1}, token, headers=key)
    answer = orders.post("/orders/", {"product_id": 1, "quantity": 2}, token, headers=key)
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert len(rows()) == 1


def test_a_key_is_its_users_own(orders, signer, rows):
    key = {"Idempotency-Key": "abc"}
    for user_id in (7, 8):
        assert orders.post("/orders/", {"product_id": 1}, signer.token(user_id), headers=key).status_code == 201
    assert [user_id for *_, user_id in rows()] == [7, 8]


def test_a_declined_order_is_declined_again(orders, token, payments):
    payments.outcome = "DECLINED"
    key = {"Idempotency-Key": "abc"}
    answers = [orders.post("/orders/", {"product_id": 1}, token, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [402, 402]
    assert answers[0].json()["order"] == answers[1].json()["order"]


def test_repeating_needs_no_product_service(orders, token, products):
    key = {"Idempotency-Key": "abc"}
    orders.post("/orders/", {"product_id": 1}, token, headers=key)
    products.stop()
    assert orders.post("/orders/", {"product_id": 1}, token, headers=key).status_code == 200


def test_repeating_a_pending_order_settles_it(orders, token, payments):
    key = {"Idempotency-Key": "abc"}
    payments.status = 503
    assert orders.post("/orders/", {"product_id": 1}, token, headers=key).status_code == 202
    payments.status = None
    answer = orders.post("/orders/", {"product_id": 1}, token, headers=key)
    assert (answer.status_code, answer.json()["status"]) == (200, "PAID")


def test_twenty_at_once_with_one_key_make_one_order(orders, token, rows, payments):
    def place(_):
        return orders.post("/orders/", {"product_id": 1}, token, headers={"Idempotency-Key": "one"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(place, range(20)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(rows()) == len(payments.charges) == 1
    assert orders.metric("orders_total", status="PAID") == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
def test_a_bad_key_is_named(orders, token, key):
    answer = orders.post("/orders/", {"product_id": 1}, token, headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


# --- what the outside is told


def test_orders_are_counted_by_status_from_zero_on(orders, token, payments):
    for status in ("PENDING", "PAID", "DECLINED"):
        assert f'orders_total{{status="{status}"}} 0.0' in orders.get("/metrics").text
    orders.post("/orders/", {"product_id": 1}, token)
    payments.outcome = "DECLINED"
    orders.post("/orders/", {"product_id": 1}, token)
    assert orders.metric("orders_total", status="PENDING") == 2
    assert orders.metric("orders_total", status="PAID") == 1
    assert orders.metric("orders_total", status="DECLINED") == 1


def test_product_and_payment_see_the_orders_trace(orders, token, products, payment_peer):
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer = orders.post(
        "/orders/", {"product_id": 1}, token, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    )
    assert trace_id in answer.headers["traceresponse"]
    for peer in (products, payment_peer):
        ((request, _),) = eventually(lambda peer=peer: peer.log)
        assert trace_id in request.headers["traceparent"]
