"""An order-service with real PostgreSQL behind it, and stand-ins for product, payment and auth."""

import itertools
import json
import threading
import time
from dataclasses import dataclass, field

import pytest
from werkzeug import Response

from order_service.app import create_app
from order_service.settings import OrderSettings
from tests.fixtures.services import task

PRODUCT = {
    "id": 1,
    "sku": "KIT-MUG-001",
    "name": "Stoneware mug",
    "description": "Not kept.",
    "unit_price_minor": 1450,
    "currency": "EUR",
    "tags": [],
}


@dataclass
class FakePayments:
    """What payment-service does, in a few lines: one charge for a key, and faults."""

    outcome: str = "PAID"
    status: int | None = None
    broken: set = field(default_factory=set)
    refused: set = field(default_factory=set)
    body: str | None = None
    wrong: dict = field(default_factory=dict)
    delay: float = 0
    gate: threading.Event | None = None
    tries: int = 0
    charges: dict = field(default_factory=dict)

    def __post_init__(self):
        self._lock = threading.Lock()
        self._ids = itertools.count(100)

    def __call__(self, request):
        with self._lock:
            self.tries += 1
            if self.status is not None:
                return Response(status=self.status)
            key = request.headers["Idempotency-Key"]
            if key in self.broken:
                return Response(status=500)
            if key in self.refused:
                return Response(status=422)
            is_new = key not in self.charges
            if is_new:
                self.charges[key] = {**request.get_json(), "id": next(self._ids), "outcome": self.outcome}
        if self.gate is not None:
            self.gate.wait(10)
        time.sleep(self.delay)
        body = self.body or json.dumps(self.charges[key] | self.wrong)
        return Response(body, 201 if is_new else 200, mimetype="application/json")


@pytest.fixture
def products(peer):
    """A stand-in for product-service that knows product 1."""
    server = peer()
    server.expect_request("/products/1").respond_with_json(PRODUCT)
    return server


@pytest.fixture
def payments():
    return FakePayments()


@pytest.fixture
def payment_peer(peer, payments):
    server = peer()
    server.expect_request("/internal/charges", method="POST").respond_with_handler(payments)
    return server


@pytest.fixture
def client_secret(tmp_path):
    file = tmp_path / "order-service"
    file.write_text("order's secret\n")
    return file


@pytest.fixture
def settings(database, products, payment_peer, auth_peer, client_secret):
    return OrderSettings(
        database_host=database.host,
        database_port=database.port,
        database_name=database.name,
        database_user="orders_app",
        database_password_file=database.password_file("orders_app"),
        auth_url=auth_peer.root,
        client_secret_file=client_secret,
        product_url=products.root,
        payment_url=payment_peer.root,
        payment_timeout_seconds=1,
    )


@pytest.fixture
def app(settings):
    app = create_app(settings)
    yield app
    for one in app.extensions["tasks"]:
        if one.started:
            one.stop()


@pytest.fixture
def orders(app, serve):
    """A client of the service."""
    return serve(app)


@pytest.fixture
def reconcile(app, database):
    """Run one round of the reconciler, as if the leases had run out."""
    reconciler = task(app, "reconciler")

    def run():
        database.run("UPDATE orders.orders SET charge_after = now() - interval '1 s'")
        reconciler.run_once()

    return run


@pytest.fixture
def token(signer):
    return signer.token(user_id=7)


@pytest.fixture
def rows(database):
    """What is in the table: `rows()` gives (id, status, quantity, user_id)."""
    return lambda: database.run("SELECT id, status, quantity, user_id FROM orders.orders ORDER BY id")
