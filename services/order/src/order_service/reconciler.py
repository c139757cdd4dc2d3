"""Settles orders that are still PENDING because payment-service did not answer or a process died."""

import time
from collections.abc import Callable

from order_service.ordering import Ordering
from order_service.signals import Signals
from order_service.store import Orders

INTERVAL_SECONDS = 1.0
# Failures in a row after which the round ends: payment-service is down, and the other orders would only take time.
_MISSES = 3


class Reconciler:
    """Settles PENDING orders. Every replica runs one; `Orders.lease_pending` divides the work between them.

    Args:
        orders: Stores the orders.
        ordering: Settles them.
        signals: Writes the telemetry.
    """

    def __init__(self, orders: Orders, ordering: Ordering, signals: Signals) -> None:
        self._orders = orders
        self._ordering = ordering
        self._signals = signals

    def run(self, stopping: Callable[[], bool]) -> None:
        """Settle all orders that are due, until there are no more or payment-service does not answer.

        An order that cannot be settled is not due again until its lease expires, so it does not block the others. If
        payment-service rejects a charge, the round goes on, since payment-service did answer.

        Args:
            stopping: Whether the process is about to end.
        """
        misses, measured_at = 0, self._measure()
        while misses < _MISSES and not stopping():
            order = self._orders.lease_pending()
            if order is None:
                break
            with self._signals.order_reconciling(order):
                order, answered = self._ordering.settle(order, late=True)
                self._signals.order_reconciled(order)
            misses = 0 if answered else misses + 1
            if time.monotonic() - measured_at >= INTERVAL_SECONDS:  # a round of rejected orders may go on without end
                measured_at = self._measure()
        self._measure()

    def _measure(self) -> float:
        self._signals.backlog_measured(self._orders.backlog())
        return time.monotonic()
