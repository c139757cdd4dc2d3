"""The telemetry of payment-service's own work."""

from prometheus_client import Counter

from payment_service.domain import Outcome, Payment
from servicekit.telemetry import logs, tracing
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer, Work

_UNAVAILABLE = "UNAVAILABLE"


class Signals:
    """Log events, metrics and spans, with methods named after business events."""

    def __init__(self, metrics: Metrics, tracer: Tracer) -> None:
        self._log = logs.get_logger()
        self._tracer = tracer
        self._payments = Counter(
            "payments_total",
            "Charges by outcome; UNAVAILABLE are tries that the processor did not answer.",
            ["outcome"],
            registry=metrics.registry,
        )
        for outcome in (*Outcome, _UNAVAILABLE):
            self._payments.labels(outcome)

    def charge_deciding(self, order_id: int) -> Work:
        """The processor is about to decide on a charge."""
        return self._tracer.span("decide charge", {"shop.order.id": order_id})

    def processor_answered(self, outcome: Outcome) -> None:
        """The processor has decided; the charge is not stored yet."""
        tracing.describe(attributes={"shop.payment.outcome": outcome})

    def charge_decided(self, payment: Payment) -> None:
        """A charge was paid or declined, for the first time."""
        self._payments.labels(payment.outcome).inc()
        self._log.info(
            "charge.decided",
            payment_id=payment.id,
            order_id=payment.charge.order_id,
            outcome=payment.outcome,
            amount_minor=payment.charge.amount_minor,
            currency=payment.charge.currency,
            decline_reason=payment.decline_reason,
        )

    def charge_repeated(self, payment: Payment) -> None:
        """A charge was requested again, so nothing was charged."""
        self._log.info("charge.repeated", payment_id=payment.id, order_id=payment.charge.order_id)

    def processor_unavailable(self, order_id: int) -> None:
        """The processor did not answer."""
        self._payments.labels(_UNAVAILABLE).inc()
        self._log.warning("processor.unavailable", order_id=order_id)
