"""A payment-service with real PostgreSQL behind it."""

import pytest

from payment_service.app import create_app
from payment_service.settings import PaymentSettings
from tests.fixtures.services import database_settings


@pytest.fixture
def start(serve, database, auth_peer, fault):
    """`start(payment_limit_minor=10)`: a client of a payment-service with these settings."""

    def run(**settings):
        # The wait is long because the machine may be busy: what a short one does is tested in servicekit.
        where = {**database_settings(database, "payments_app"), "database_pool_wait_seconds": 10}
        return serve(create_app(PaymentSettings(**where, auth_url=auth_peer.root, flags_file=fault.path, **settings)))

    return run


@pytest.fixture
def client(start):
    return start()


@pytest.fixture
def charge(signer):
    """Ask for a charge as order-service does: `charge(client, "order-7", amount_minor=5)`."""
    token = signer.service_token()

    def ask(client, key="order-7", **members):
        body = {"order_id": 7, "user_id": 1, "amount_minor": 1450, "currency": "EUR", **members}
        return client.post("/internal/charges", body, token, headers={} if key is None else {"Idempotency-Key": key})

    return ask
