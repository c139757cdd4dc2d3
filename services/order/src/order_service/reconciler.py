"""Finishes what a request could not: orders that are PENDING because payment did not answer or a process died."""

from collections.abc import Callable, Sequence

from order_service.domain import Order, Status
from order_service.ordering import Ordering
from order_service.signals import Signals
from order_service.store import Orders
from servicekit import logs

INTERVAL_SECONDS = 1.0
_BATCH = 20


class Reconciler:
    """Settles PENDING orders. Every replica runs one; `Orders.lease_pending` shares the work out.

    Args:
        orders: Where the orders are.
        ordering: Settles them.
        signals: Tells the outside.
        stopping: Whether the process is about to end.
    """

    def __init__(self, orders: Orders, ordering: Ordering, signals: Signals, stopping: Callable[[], bool]) -> None:
        self._orders = orders
        self._ordering = ordering
        self._signals = signals
        self._stopping = stopping

    def run_once(self) -> None:
        """Settle all that is due, until there is no more or payment does not answer."""
        while not self._stopping():
            leased = self._orders.lease_pending(_BATCH)
            if not self._settle_all(leased) or len(leased) < _BATCH:
                break
        self._signals.backlog_measured(self._orders.backlog())

    def _settle_all(self, leased: Sequence[Order]) -> bool:
        for order in leased:
            try:
                settled = self._ordering.settle(order)
            except Exception as error:  # noqa: BLE001  # one broken order must not keep the others waiting
                logs.get_logger().error("order.reconcile_failed", order_id=order.id, exc_info=error)
                continue
            if settled.status == Status.PENDING:
                return False  # payment is down: knocking for each of the others would only take time
            self._signals.order_reconciled(settled)
        return True
