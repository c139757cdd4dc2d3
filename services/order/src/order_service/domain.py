"""Orders."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_PRICE = 10**10
"""The highest unit price, in the currency's minor unit: payment charges a hundred times that at most."""


class Status(StrEnum):
    """Where an order is. PENDING is the only one that it leaves."""

    PENDING = "PENDING"
    PAID = "PAID"
    DECLINED = "DECLINED"


class ProductNotFound(Exception):  # noqa: N818  # named for what happened
    """What was ordered does not exist."""

    def __init__(self, product_id: int) -> None:
        super().__init__(f"product_id: there is no product {product_id}.")


class OrderNotFound(Exception):  # noqa: N818
    """There is no such order, or it is somebody else's."""

    def __init__(self, order_id: int) -> None:
        super().__init__(f"There is no order {order_id}.")


class KeyReused(Exception):  # noqa: N818
    """The idempotency key stands for another order."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: it was used for an order with another body.")


class Refusal(StrEnum):
    """Why there is no charge."""

    REFUSED = "refused"
    """Payment did not take it as it was asked for."""
    NO_PAYMENT = "no_payment"
    """What payment answered is no payment of this order: another order's or amount, or not PAID nor DECLINED."""
    NO_PRICE = "no_price"
    """The order has nothing to charge."""


class ChargeRefused(Exception):  # noqa: N818
    """An order cannot be charged: somebody's mistake."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Order:
    """An order.

    Attributes:
        id: Its number.
        user_id: Whose it is; None for a row that somebody wrote by hand.
        product: The product as it was when it was bought, price included.
        quantity: How many.
        status: A Status, or whatever somebody wrote by hand.
        payment_id: The payment that settled it.
        created_at: When it was placed.
        traceparent: The trace in which it was placed; None for an order from before this was kept.
    """

    id: int
    user_id: int | None
    product: Any
    quantity: int
    status: str
    payment_id: int | None
    created_at: datetime | None
    traceparent: str | None = None

    @property
    def amount_minor(self) -> int:
        """What it costs, in the currency's minor unit.

        Raises:
            ChargeRefused: A row that somebody wrote by hand may have no price, or one that is no amount.
        """
        price = self._of_product("unit_price_minor")
        if type(price) is not int or not 0 <= price <= MAX_PRICE:  # JSON's true is an int to Python, too
            raise ChargeRefused(Refusal.NO_PRICE)
        return price * self.quantity

    @property
    def currency(self) -> str:
        """ISO 4217. Raises as `amount_minor`."""
        return str(self._of_product("currency"))

    def _of_product(self, name: str) -> Any:
        try:
            return self.product[name]
        except (KeyError, IndexError, TypeError):
            raise ChargeRefused(Refusal.NO_PRICE) from None

    @property
    def payment_key(self) -> str:
        """The key under which it is charged: made of its id, so that it is charged once whoever tries."""
        return f"order-{self.id}"

    def is_for(self, product_id: int, quantity: int) -> bool:
        """Whether it is what was asked for, when somebody asks again with the same idempotency key."""
        try:
            return bool(self.product["id"] == product_id and self.quantity == quantity)
        except (KeyError, IndexError, TypeError):  # a row that somebody wrote by hand
            return False


@dataclass(frozen=True)
class Settlement:
    """How a charge ended.

    Attributes:
        status: PAID or DECLINED.
        payment_id: The payment that says so.
    """

    status: Status
    payment_id: int
