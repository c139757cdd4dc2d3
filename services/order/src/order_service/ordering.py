"""The use cases: place an order, settle it, read orders."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from order_service.domain import ChargeRefused, KeyReused, Order, OrderNotFound, Settlement, Status
from order_service.signals import Signals
from servicekit.web.errors import DependencyUnavailable


class Orders(Protocol):
    """Keeps orders; see `store.Orders`."""

    def add(
        self, user_id: int, product: Mapping[str, Any], quantity: int, key: str | None, traceparent: str | None
    ) -> Order | None:
        """Keep a new PENDING order; None if this user has used the key."""

    def by_key(self, user_id: int, key: str) -> Order | None:
        """Find an order by its idempotency key."""

    def by_id(self, order_id: int) -> Order | None:
        """Find an order."""

    def newest(self, user_id: int | None, before_id: int, count: int) -> Sequence[Order]:
        """List a user's orders, or everybody's."""

    def settle(self, order_id: int, settlement: Settlement) -> tuple[Order, bool]:
        """Settle an order if it is PENDING; says whether it was."""


class Products(Protocol):
    """Knows products; see `clients.Products`."""

    def get(self, product_id: int) -> Mapping[str, Any]:
        """Return a product as it is now."""


class Payments(Protocol):
    """Charges; see `clients.Payments`."""

    def charge(self, order: Order) -> Settlement:
        """Charge an order, once however often it is called."""


class Ordering:
    """Places and settles orders.

    Args:
        orders: Keeps them.
        products: Knows what they are for.
        payments: Has them paid.
        signals: Tells the outside.
    """

    def __init__(self, orders: Orders, products: Products, payments: Payments, signals: Signals) -> None:
        self._orders = orders
        self._products = products
        self._payments = payments
        self._signals = signals

    def place(self, user_id: int, product_id: int, quantity: int, key: str | None) -> tuple[Order, bool]:
        """Place an order, or find the one that was placed with this key.

        Args:
            user_id: Who orders.
            product_id: What.
            quantity: How many.
            key: The client's idempotency key.

        Returns:
            The order, settled if payment answered, and whether it is new.

        Raises:
            ProductNotFound: There is no such product.
            KeyReused: The key was used for another order.
            DependencyUnavailable: Product or database did not answer: nothing was ordered, as far as can be known.
        """
        earlier = self._orders.by_key(user_id, key) if key is not None else None
        if earlier is None:
            product = self._products.get(product_id)
            order = self._orders.add(user_id, product, quantity, key, self._signals.trace_of_request())
            if order is not None:
                self._signals.order_created(order)
                return self._answered(order), True
            assert key is not None, "only a key can be taken"  # noqa: S101
            earlier = self._orders.by_key(user_id, key)  # another request with the key was faster
            assert earlier is not None, "orders are never deleted"  # noqa: S101
        if not earlier.is_for(product_id, quantity):
            raise KeyReused
        return self._answered(earlier), False

    def _answered(self, order: Order) -> Order:
        order, _ = self.settle(order)
        self._signals.order_answered(order)
        return order

    def settle(self, order: Order, *, late: bool = False) -> tuple[Order, bool]:
        """Have a PENDING order paid.

        Args:
            order: The order.
            late: Whether the request that placed it is over: the reconciler is at work.

        Returns:
            The order, and whether payment and database answered. It is PAID or DECLINED. It is still PENDING if they
            did not answer, or if payment refused the charge; then it is the reconciler's turn, a little later.
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
            OrderNotFound: There is none, or it is not for these eyes: the answer is the same.
        """
        order = self._orders.by_id(order_id)
        if order is None or not (is_admin or order.user_id == user_id):
            raise OrderNotFound(order_id)
        return order

    def newest(self, before_id: int, count: int, *, user_id: int, is_admin: bool) -> Sequence[Order]:
        """Return up to `count` orders with smaller ids than `before_id`, newest first: one's own, or all for admins."""
        return self._orders.newest(None if is_admin else user_id, before_id, count)
