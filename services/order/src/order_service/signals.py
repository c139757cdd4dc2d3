"""The telemetry of order-service's own work."""

from prometheus_client import Counter, Gauge

from order_service.domain import ChargeRefused, Order, Status
from order_service.store import Backlog
from servicekit.telemetry import logs, tracing
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer, Work


class Signals:
    """Log events, metrics and spans, with methods named after business events."""

    def __init__(self, metrics: Metrics, tracer: Tracer) -> None:
        self._log = logs.get_logger()
        self._tracer = tracer
        registry = metrics.registry
        self._orders = Counter(
            "orders_total",
            "Orders that reached a status: each is PENDING once, and then PAID or DECLINED.",
            ["status"],
            registry=registry,
        )
        for status in Status:
            self._orders.labels(status)
        self._left_pending = Counter(
            "orders_left_pending_total", "Tries to settle an order that got no answer.", registry=registry
        )
        self._refused = Counter(
            "charges_refused_total", "Tries to settle an order that payment did not take.", registry=registry
        )
        self._reconciled = Counter("orders_reconciled_total", "Orders settled by the reconciler.", registry=registry)
        self._pending = Gauge(
            "orders_pending",
            "Orders that are PENDING now; every replica says the same, so take the max.",
            registry=registry,
        )
        self._oldest = Gauge(
            "orders_pending_oldest_age_seconds", "Age of the oldest PENDING order; take the max.", registry=registry
        )

    def trace_of_request(self) -> str | None:
        """Return the `traceparent` of the current request, which the order stores."""
        return tracing.traceparent()

    def order_created(self, order: Order) -> None:
        """A new order was stored in the database."""
        self.order_answered(order)
        self._orders.labels(Status.PENDING).inc()
        self._log.info("order.created", order_id=order.id, amount_minor=order.amount_minor, currency=order.currency)

    def order_answered(self, order: Order) -> None:
        """A request placed this order, or repeated an earlier one that did."""
        tracing.describe(
            attributes={
                "shop.order.id": order.id,
                "shop.order.status": order.status,
                "shop.order.quantity": order.quantity,
                "shop.product.id": order.product["id"],
            }
        )

    def order_settling(self, order: Order) -> Work:
        """An order is about to be charged."""
        return self._tracer.span("settle order", _about(order))

    def order_reconciling(self, order: Order) -> Work:
        """The reconciler is about to settle an order, in a new trace that is linked to the trace of its request."""
        return self._tracer.root("reconcile order", _about(order), order.traceparent)

    def order_reconciled(self, order: Order) -> None:
        """The reconciler has finished with an order; if it is still PENDING, it will try again."""
        tracing.describe(attributes=_about(order))

    def order_settled(self, order: Order, *, late: bool) -> None:
        """An order was paid or declined, by its request or later (`late`) by the reconciler."""
        tracing.describe(attributes=_about(order))
        self._orders.labels(order.status).inc()
        if late:
            self._reconciled.inc()
        self._log.info("order.settled", order_id=order.id, status=order.status, payment_id=order.payment_id, late=late)

    def order_settled_elsewhere(self, order: Order) -> None:
        """Another request, or a reconciler, was faster and has already reported it."""
        tracing.describe(attributes=_about(order))

    def order_left_pending(self, order: Order, dependency: str) -> None:
        """payment-service or the database did not answer; the reconciler will try again."""
        tracing.failed("dependency_unavailable")
        self._left_pending.inc()
        self._log.warning("order.left_pending", order_id=order.id, dependency=dependency)

    def charge_refused(self, order: Order, error: ChargeRefused) -> None:
        """payment-service rejected a charge. The reconciler keeps trying, but an operator has to look into it."""
        tracing.failed("charge_refused")
        self._refused.inc()
        self._log.error("charge.refused", order_id=order.id, reason=error.reason)

    def backlog_measured(self, backlog: Backlog) -> None:
        """The number of orders that wait for payment was measured."""
        self._pending.set(backlog.orders)
        self._oldest.set(backlog.oldest_seconds)


def _about(order: Order) -> dict[str, str | int]:
    return {"shop.order.id": order.id, "shop.order.status": order.status}
