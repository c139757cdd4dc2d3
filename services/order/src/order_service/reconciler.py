"""Finishes what a request could not: orders that are PENDING because payment did not answer or a process died."""

from collections.abc import Callable

from order_service.ordering import Ordering
from order_service.signals import Signals
from order_service.store import Orders

INTERVAL_SECONDS = 1.0
_MISSES = 3  # in a row without an answer: payment is down, and asking for each of the others would only take time


class Reconciler:
    """Settles PENDING orders. Every replica runs one; `Orders.lease_pending` shares the work out.

    Args:
        orders: Where the orders are.
        ordering: Settles them.
        signals: Tells the outside.
    """

    def __init__(self, orders: Orders, ordering: Ordering, signals: Signals) -> None:
        self._orders = orders
        self._ordering = ordering
        self._signals = signals

    def run(self, stopping: Callable[[], bool]) -> None:
        """Settle all that is due, until there is no more or payment does not answer.

        What cannot be settled has its lease to sit out, and so comes after all that waits already: one order that
        payment chokes on keeps no other waiting. An order whose charge payment refuses is no reason to stop: payment
        did answer.

        Args:
            stopping: Whether the process is about to end.
        """
        misses = 0
        while misses < _MISSES and not stopping():
            order = self._orders.lease_pending()
            if order is None:
                break
            with self._signals.order_reconciling(order):
                order, answered = self._ordering.settle(order, late=True)
                self._signals.order_reconciled(order)
            misses = 0 if answered else misses + 1
        self._signals.backlog_measured(self._orders.backlog())
