"""Charging with a token of order-service's own: without one, or with one that is refused, no order is lost."""

import json

import pytest
from structlog.testing import capture_logs
from werkzeug import Response

from tests.fixtures.services import eventually


@pytest.fixture
def token_route(auth_peer):
    """Change what auth-service answers when it is asked for a token: `token_route(status=503)`."""

    def change(status=200, token=None):
        body = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 600} if token else {})
        auth_peer.log.clear()
        (matcher,) = [m for m in auth_peer.handlers if m.matcher.uri == "/internal/token"]
        matcher.respond_with_handler(lambda _: Response(body, status, mimetype="application/json"))

    return change


@pytest.fixture
def picky(payments, payment_peer):
    """A payment-service that takes these tokens only: `picky("good")`."""

    def change(*taken, kind="unauthenticated", status=401):
        def answer(request):
            if request.headers["Authorization"].removeprefix("Bearer ") in taken:
                return payments(request)
            return Response(f'{{"type": "urn:shop:problem:{kind}"}}', status, mimetype="application/problem+json")

        payment_peer.clear()
        payment_peer.expect_request("/internal/charges", method="POST").respond_with_handler(answer)

    return change


def _place(orders, token):
    return orders.post("/orders/", {"product_id": 1}, token)


def test_a_charge_carries_the_services_token_and_not_the_users(orders, token, payment_peer, auth_peer):
    assert [_place(orders, token).status_code for _ in range(3)] == [201] * 3
    sent = {request.headers["Authorization"] for request, _ in payment_peer.log}
    assert len(sent) == 1
    assert f"Bearer {token}" not in sent
    assert [request.path for request, _ in auth_peer.log].count("/internal/token") == 1


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_without_a_token_the_order_waits_and_is_paid_later(
    orders, token, token_route, payments, reconcile, signer, rows, status
):
    token_route(status)
    with capture_logs() as events:
        answer = _place(orders, token)
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert answer.headers["Location"] == f"/orders/{answer.json()['id']}"
    assert payments.tries == 0
    left = [event for event in events if event["event"] == "order.left_pending"]
    assert [event["dependency"] for event in left] == ["auth-service"]
    token_route(token=signer.service_token())
    eventually(lambda: reconcile() or [status for _, status, *_ in rows()] == ["PAID"], pause=0.2)
    assert payments.tries == 1


def test_a_token_that_payment_refuses_is_replaced_within_the_request(orders, token, token_route, picky, payments):
    token_route(token="withdrawn")
    picky("good")
    _place(orders, token)  # both of its tries are refused
    token_route(token="good")
    assert _place(orders, token).status_code == 201
    assert payments.tries == 1


def test_while_payment_refuses_every_token_the_order_waits_and_counts_as_unavailable(orders, token, picky, payments):
    picky()
    with capture_logs() as events:
        answer = _place(orders, token)
    assert answer.status_code == 202
    assert [event["dependency"] for event in events if event["event"] == "order.left_pending"] == ["payment-service"]
    assert "charge.refused" not in {event["event"] for event in events}
    assert payments.tries == 0


def test_who_may_not_charge_has_to_be_looked_into(orders, token, picky):
    picky(kind="forbidden", status=403)
    with capture_logs() as events:
        assert _place(orders, token).status_code == 202
    assert "charge.refused" in {event["event"] for event in events}
