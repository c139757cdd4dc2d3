"""order-service's composition root."""

from flask import Flask

import shop
from order_service import clients, routes
from order_service.domain import KeyReused, OrderNotFound, ProductNotFound
from order_service.ordering import Ordering
from order_service.reconciler import INTERVAL_SECONDS, Reconciler
from order_service.settings import OrderSettings
from order_service.signals import Signals
from order_service.store import Orders
from servicekit.calls.client import ServiceClient
from servicekit.config import load
from servicekit.database.pool import Database
from servicekit.database.statistics import Statistics
from servicekit.identity import auth
from servicekit.identity.credentials import ServiceTokens
from servicekit.process.background import Periodic
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.web.app import create_app as create_service
from servicekit.web.errors import ErrorTable, Problem
from servicekit.web.openapi import create_api, document_blueprint

SERVICE = "order-service"

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
    metrics = Metrics(enabled=measures())
    telemetry = shop.telemetry(SERVICE, metrics)
    tracer = telemetry.tracer
    signals = Signals(metrics, tracer)
    database = Database(settings, SERVICE, metrics, tracer)
    orders = Orders(database, settings.lease_seconds)
    connections = max(1, settings.threads * 3 // 4)  # a peer that hangs leaves threads for what does not need it
    products = ServiceClient(
        "product-service",
        settings.product_url,
        metrics,
        tracer,
        timeout_seconds=settings.product_timeout_seconds,
        connections=connections,
    )
    keys = auth.jwks_client(settings, metrics, tracer)
    issuer = ServiceClient("auth-service", settings.auth_url, metrics, tracer, timeout_seconds=2.0, connections=2)
    tokens = ServiceTokens(issuer, SERVICE, settings.client_secret_file, "payment-service")
    payments = ServiceClient(
        "payment-service",
        settings.payment_url,
        metrics,
        tracer,
        timeout_seconds=settings.payment_timeout_seconds,
        connections=connections,
        credential=tokens,
    )
    ordering = Ordering(orders, clients.Products(products), clients.Payments(payments), signals)
    reconciler = Reconciler(orders, ordering, signals)
    api = create_api("order-service", "Place orders, and look them up.")
    blueprint = routes.blueprint(api, ordering, auth.Authenticator(keys, settings))
    return create_service(
        SERVICE,
        settings,
        metrics,
        telemetry,
        blueprints=[blueprint, document_blueprint(api, "orders")],
        error_table=ERRORS,
        ready_checks=[database.ping],
        tasks=[
            Periodic("reconciler", INTERVAL_SECONDS, reconciler.run),
            Statistics(database, metrics.registry).task(),
            keys.task(),
            tokens.task(),
        ],
    )
