"""payment-service's routes."""

from flask import Blueprint
from pydantic import Field
from spectree import SpecTree

from payment_service.domain import Charge, Outcome, Payment, PaymentNotFound, ProcessorDown
from payment_service.faults import Processor
from payment_service.signals import Signals
from payment_service.store import Payments
from servicekit.identity.auth import Authenticator, Callers, principal
from servicekit.web.errors import DependencyUnavailable
from servicekit.web.openapi import BEARER, MAX_ID, Answer, Body, Headers, Moment, answers


class ChargeRequest(Body):
    """A charge for an order."""

    order_id: int = Field(ge=1, le=MAX_ID)
    user_id: int = Field(ge=1, le=MAX_ID)
    amount_minor: int = Field(ge=0, le=10**12, description="In the currency's minor unit.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217.")


class ChargeHeaders(Headers):
    """The headers of a charge."""

    idempotency_key: str = Field(alias="Idempotency-Key", min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")


class PaymentAnswer(Answer):
    """A payment."""

    id: int
    order_id: int
    outcome: Outcome
    decline_reason: str | None
    amount_minor: int
    currency: str
    created_at: Moment


def blueprint(  # noqa: PLR0913, PLR0917  # what the routes need, by name
    api: SpecTree, payments: Payments, processor: Processor, auth: Authenticator, callers: Callers, signals: Signals
) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("payments", __name__)

    @routes.get(f"/payments/<int(min=1, max={MAX_ID}):payment_id>")
    @auth.required
    @api.validate(resp=answers({200: PaymentAnswer}, 401, 404), security=BEARER, tags=["payments"])
    def read_payment(payment_id: int) -> PaymentAnswer:
        """Read one of your own payments; admins can read any payment."""
        payment = payments.by_id(payment_id)
        if payment is None or not (principal().is_admin or payment.charge.user_id == principal().user_id):
            raise PaymentNotFound(payment_id)
        return _answer(payment)

    @routes.post("/internal/charges")
    @callers.only("order-service")
    @api.validate(resp=answers({200: PaymentAnswer, 201: PaymentAnswer}, 401, 403, 415, 422))
    def charge(json: ChargeRequest, headers: ChargeHeaders) -> tuple[PaymentAnswer, int]:
        """Charge an order, once for each key. Only for order-service; not reachable through the gateway."""
        wanted = Charge(json.order_id, json.user_id, json.amount_minor, json.currency)
        recorded = payments.recorded(headers.idempotency_key, wanted)
        if recorded is not None:  # so the processor need not be available
            signals.charge_repeated(recorded)
            return _answer(recorded), 200
        try:
            with signals.charge_deciding(wanted.order_id):
                outcome, reason = processor.decide(headers.idempotency_key, wanted)
                signals.processor_answered(outcome)
        except ProcessorDown:
            signals.processor_unavailable(wanted.order_id)
            raise DependencyUnavailable("payment-processor") from None
        payment, is_new = payments.record(headers.idempotency_key, wanted, outcome, reason)
        if is_new:
            signals.charge_decided(payment)
        else:
            signals.charge_repeated(payment)
        return _answer(payment), 201 if is_new else 200

    return routes


def _answer(payment: Payment) -> PaymentAnswer:
    return PaymentAnswer(
        id=payment.id,
        order_id=payment.charge.order_id,
        outcome=payment.outcome,
        decline_reason=payment.decline_reason,
        amount_minor=payment.charge.amount_minor,
        currency=payment.charge.currency,
        created_at=payment.created_at,
    )
