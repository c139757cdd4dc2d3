"""Who may charge: order-service, and nobody else."""

import pytest

ORDER = {"order_id": 7, "user_id": 1, "amount_minor": 1450, "currency": "EUR"}
KEY = {"Idempotency-Key": "order-7"}

STRANGERS = {
    "nobody": (401, lambda _: None),
    "a customer": (401, lambda s: s.token()),
    "an admin": (401, lambda s: s.token(role="admin")),
    "order-service, for another": (401, lambda s: s.service_token("order-service", "user-service")),
    "order-service, for the shop": (401, lambda s: s.service_token("order-service", "shop")),
    "auth-service": (403, lambda s: s.service_token("auth-service")),
    "payment-service itself": (403, lambda s: s.service_token("payment-service")),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("body", [ORDER, {}])
def test_nobody_else_charges(client, signer, database, stranger, body):
    status, token = STRANGERS[stranger]
    answer = client.post("/internal/charges", body, token(signer), headers=KEY)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert database.run("SELECT count(*) FROM payments.payments") == [(0,)]


def test_order_service_charges_and_reads_no_payment_with_that(client, charge, signer):
    answer = charge(client)
    assert answer.status_code == 201
    path = f"/payments/{answer.json()['id']}"
    assert client.get(path, signer.service_token()).status_code == 401
    assert client.get(path, signer.token()).status_code == 200


def test_without_the_keys_nobody_can_tell_and_nothing_is_charged(client, charge, auth_peer, database):
    auth_peer.stop()
    answer = charge(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert database.run("SELECT count(*) FROM payments.payments") == [(0,)]
