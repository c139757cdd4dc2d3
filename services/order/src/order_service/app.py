"""order-service's composition root."""

from functools import partial

from flask import Flask

from order_service import clients, faults, routes
from order_service.domain import KeyReused, OrderNotFound, ProductNotFound
from order_service.reconciler import INTERVAL_SECONDS, Reconciler
from order_service.settings import OrderSettings
from order_service.signals import Signals
from order_service.store import Orders
from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import DATABASE, SHOP
from shop.faults import ROUND_SECONDS, Faults

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
    set_faults = Faults(kit, settings, *faults.FLAGS)
    database = kit.database(settings, DATABASE, statistics=True)
    orders = Orders(faults.Statements(database, set_faults), settings.lease_seconds)
    connections = max(1, settings.threads * 3 // 4)  # so a hanging peer leaves threads for other requests
    products = kit.client(
        "product-service",
        settings.product_url,
        timeout_seconds=settings.product_timeout_seconds,
        connections=connections,
    )
    ask_payment = partial(
        kit.client,
        "payment-service",
        timeout_seconds=settings.payment_timeout_seconds,
        connections=connections,
        credential=kit.tokens("payment-service", settings.auth_url, settings),
    )
    payments = faults.Payments(ask_payment(settings.payment_url), settings.payment_url, ask_payment, set_faults)
    ordering = faults.Ordering(
        orders, clients.Products(products), clients.Payments(payments), signals, faults=set_faults
    )
    kit.every(ROUND_SECONDS, "nuisance", faults.Nuisance(database, set_faults).round)
    kit.every(INTERVAL_SECONDS, "reconciler", Reconciler(orders, ordering, signals).run)
    api = kit.api("Place orders, and look them up.")
    blueprint = routes.blueprint(api, ordering, kit.authenticator(kit.keys(settings), settings))
    return set_faults.spoil(kit.app(api, blueprint, prefix="orders", errors=ERRORS))
