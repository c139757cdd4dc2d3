"""order-service's composition root."""

from flask import Flask

from order_service import clients, routes
from order_service.domain import KeyReused, OrderNotFound, ProductNotFound
from order_service.ordering import Ordering
from order_service.reconciler import INTERVAL_SECONDS, Reconciler
from order_service.settings import OrderSettings
from order_service.signals import Signals
from order_service.store import Orders
from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import DATABASE, SHOP

ERRORS: ErrorTable = {
    **auth.ERRORS,
    ProductNotFound: Problem(404, "product-not-found", "No such product"),
    OrderNotFound: Problem(404, "order-not-found", "No such order"),
    KeyReused: Problem(422, "idempotency-key-reused", "Idempotency key reused"),
}


def create_app(settings: OrderSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(OrderSettings)
    kit = Service("order-service", settings, SHOP)
    signals = Signals(kit.metrics, kit.tracer)
    orders = Orders(kit.database(settings, DATABASE, statistics=True), settings.lease_seconds)
    connections = max(1, settings.threads * 3 // 4)  # a peer that hangs leaves threads for what does not need it
    products = kit.client(
        "product-service",
        settings.product_url,
        timeout_seconds=settings.product_timeout_seconds,
        connections=connections,
    )
    payments = kit.client(
        "payment-service",
        settings.payment_url,
        timeout_seconds=settings.payment_timeout_seconds,
        connections=connections,
        credential=kit.tokens("payment-service", settings.auth_url, settings),
    )
    ordering = Ordering(orders, clients.Products(products), clients.Payments(payments), signals)
    kit.every(INTERVAL_SECONDS, "reconciler", Reconciler(orders, ordering, signals).run)
    api = kit.api("Place orders, and look them up.")
    blueprint = routes.blueprint(api, ordering, kit.authenticator(kit.keys(settings), settings))
    return kit.app(api, blueprint, prefix="orders", errors=ERRORS)
