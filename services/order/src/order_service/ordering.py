"""The use cases: place an order, settle it, read orders."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from order_service.domain import ChargeRefused, KeyReused, Order, OrderNotFound, Settlement, Status
from order_service.signals import Signals
from servicekit.web.errors import DependencyUnavailable


class Orders(Protocol):
    """Stores orders; see `store.Orders`."""

    def add(
        self, user_id: int, product: Mapping[str, Any], quantity: int, key: str | None, traceparent: str | None
    ) -> Order | None:
        """Store a new PENDING order; return None if this user has used the key before."""

    def by_key(self, user_id: int, key: str) -> Order | None:
        """Find an order by its idempotency key."""

    def by_id(self, order_id: int) -> Order | None:
        """Find an order."""

    def newest(self, user_id: int | None, before_id: int, count: int) -> Sequence[Order]:
        """List the orders of a user, or of all users."""

    def settle(self, order_id: int, settlement: Settlement) -> tuple[Order, bool]:
        """Settle an order if it is PENDING; return also whether it was."""


class Products(Protocol):
    """Reads products; see `clients.Products`."""

    def get(self, product_id: int) -> Mapping[str, Any]:
        """Return a product as it is now."""


class Payments(Protocol):
    """Charges orders; see `clients.Payments`."""

    def charge(self, order: Order) -> Settlement:
        """Charge an order. Repeated calls charge it only once."""


class Ordering:
    """Places and settles orders.

    Args:
        orders: Stores them.
        products: Reads the ordered products.
        payments: Charges them.
        signals: Writes the telemetry.
    """

    def __init__(self, orders: Orders, products: Products, payments: Payments, signals: Signals) -> None:
        self._orders = orders
        self._products = products
        self._payments = payments
        self._signals = signals

    def place(self, user_id: int, product_id: int, quantity: int, key: str | None) -> tuple[Order, bool]:
        """Place an order, or find the one that was placed with this key.

        Args:
            user_id: The user who orders.
            product_id: The product.
            quantity: The number of items.
            key: The client's idempotency key.

        Returns:
            The order, settled if payment answered, and whether it is new.

        Raises:
            ProductNotFound: There is no such product.
            KeyReused: The key was used for another order.
            DependencyUnavailable: product-service or the database did not answer. Most likely nothing was ordered.
        """
        earlier = self._orders.by_key(user_id, key) if key is not None else None
        if earlier is None:
            product = self._products.get(product_id)
            order = self._orders.add(user_id, product, quantity, key, self._signals.trace_of_request())
            if order is not None:
                self._signals.order_created(order)
                return self._answered(order), True
            assert key is not None, "only a key can be taken"  # noqa: S101
            earlier = self._orders.by_key(user_id, key)  # another request with this key was faster
            assert earlier is not None, "orders are never deleted"  # noqa: S101
        if not earlier.is_for(product_id, quantity):
            raise KeyReused
        return self._answered(earlier), False

    def _answered(self, order: Order) -> Order:
        order, _ = self.settle(order)
        self._signals.order_answered(order)
        return order

    def settle(self, order: Order, *, late: bool = False) -> tuple[Order, bool]:
        """Charge a PENDING order and store the result.

        Args:
            order: The order.
            late: Whether the reconciler calls this, after the request that placed the order.

        Returns:
            The order, and whether payment-service and the database answered. The order is PAID or DECLINED. It stays
            PENDING if they did not answer, or if payment-service rejected the charge; the reconciler tries again later.
        """
        if order.status != Status.PENDING:
            return order, True
        with self._signals.order_settling(order):
            try:
                settled, was_pending = self._orders.settle(order.id, self._payments.charge(order))
            except DependencyUnavailable as error:
                self._signals.order_left_pending(order, error.dependency)
                return order, False
            except ChargeRefused as error:
                self._signals.charge_refused(order, error)
                return order, True
            if was_pending:
                self._signals.order_settled(settled, late=late)
            else:
                self._signals.order_settled_elsewhere(settled)
            return settled, True

    def read(self, order_id: int, *, user_id: int, is_admin: bool) -> Order:
        """Return an order to its owner, or to an admin.

        Raises:
            OrderNotFound: There is no such order, or the user may not see it.
        """
        order = self._orders.by_id(order_id)
        if order is None or not (is_admin or order.user_id == user_id):
            raise OrderNotFound(order_id)
        return order

    def newest(self, before_id: int, count: int, *, user_id: int, is_admin: bool) -> Sequence[Order]:
        """Return up to `count` orders with ids below `before_id`, newest first: the user's own, or all for admins."""
        return self._orders.newest(None if is_admin else user_id, before_id, count)
