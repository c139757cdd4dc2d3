"""payment-service's composition root."""

from flask import Flask

from payment_service import faults, routes
from payment_service.domain import KeyReused, PaymentNotFound
from payment_service.processor import Processor
from payment_service.settings import PaymentSettings
from payment_service.signals import Signals
from servicekit.config import load
from servicekit.identity import auth
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import DATABASE, SHOP
from shop.faults import Faults

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
    set_faults = Faults(kit, settings, *faults.FLAGS)
    payments = faults.Payments(kit.database(settings, DATABASE), set_faults)
    processor = faults.Processor(Processor(settings), set_faults)
    signals = Signals(kit.metrics, kit.tracer)
    keys = kit.keys(settings)
    api = kit.api("Look up payments. Charging is internal.")
    blueprint = routes.blueprint(
        api, payments, processor, kit.authenticator(keys, settings), kit.callers(keys, settings), signals
    )
    return set_faults.spoil(kit.app(api, blueprint, prefix="payments", errors=ERRORS))
