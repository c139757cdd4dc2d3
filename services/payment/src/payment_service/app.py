"""payment-service's composition root."""

from flask import Flask

import shop
from payment_service import routes
from payment_service.domain import KeyReused, PaymentNotFound
from payment_service.processor import Processor
from payment_service.settings import PaymentSettings
from payment_service.signals import Signals
from payment_service.store import Payments
from servicekit.config import load
from servicekit.database.pool import Database
from servicekit.identity import auth
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.web.app import create_app as create_service
from servicekit.web.errors import ErrorTable, Problem
from servicekit.web.openapi import create_api, document_blueprint

SERVICE = "payment-service"

ERRORS: ErrorTable = {
    **auth.ERRORS,
    PaymentNotFound: Problem(404, "payment-not-found", "No such payment"),
    KeyReused: Problem(422, "idempotency-key-reused", "Idempotency key reused"),
}


def create_app(settings: PaymentSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(PaymentSettings)
    metrics = Metrics(enabled=measures())
    telemetry = shop.telemetry(SERVICE, metrics)
    tracer = telemetry.tracer
    database = Database(settings, SERVICE, metrics, tracer)
    processor = Processor(settings)
    signals = Signals(metrics, tracer)
    signals.faults_set(processor.faults)
    keys = auth.jwks_client(settings, metrics, tracer)
    api = create_api("payment-service", "Look up payments. Charging is internal.")
    blueprint = routes.blueprint(
        api,
        Payments(database),
        processor,
        auth.Authenticator(keys, settings),
        auth.Callers(keys, settings, SERVICE),
        signals,
    )
    return create_service(
        SERVICE,
        settings,
        metrics,
        telemetry,
        blueprints=[blueprint, document_blueprint(api, "payments")],
        error_table=ERRORS,
        ready_checks=[database.ping],
        tasks=[keys.task()],
    )
