"""payment-service's composition root."""

from flask import Flask

from payment_service import routes
from payment_service.domain import KeyReused, PaymentNotFound
from payment_service.processor import Processor
from payment_service.settings import PaymentSettings
from payment_service.signals import Signals
from payment_service.store import Payments
from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import DATABASE, SHOP

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
    kit = Service("payment-service", settings, SHOP)
    payments = Payments(kit.database(settings, DATABASE))
    processor = Processor(settings)
    signals = Signals(kit.metrics, kit.tracer)
    signals.faults_set(processor.faults)
    keys = kit.keys(settings)
    api = kit.api("Look up payments. Charging is internal.")
    blueprint = routes.blueprint(
        api, payments, processor, kit.authenticator(keys, settings), kit.callers(keys, settings), signals
    )
    return kit.app(api, blueprint, prefix="payments", errors=ERRORS)
