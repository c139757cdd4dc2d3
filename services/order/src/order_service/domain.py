"""Orders."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_PRICE = 10**10
"""The highest unit price, in the currency's minor unit. Payment charges at most a hundred times as much."""


class Status(StrEnum):
    """The status of an order. Only a PENDING order changes its status."""

    PENDING = "PENDING"
    PAID = "PAID"
    DECLINED = "DECLINED"


class ProductNotFound(Exception):  # noqa: N818  # named after what happened
    """The ordered product does not exist."""

    def __init__(self, product_id: int) -> None:
        super().__init__(f"product_id: there is no product {product_id}.")


class OrderNotFound(Exception):  # noqa: N818
    """There is no such order, or it belongs to another user."""

    def __init__(self, order_id: int) -> None:
        super().__init__(f"There is no order {order_id}.")


class KeyReused(Exception):  # noqa: N818
    """The idempotency key was used for another order."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: it was used for an order with another body.")


class Refusal(StrEnum):
    """Why an order was not charged."""

    REFUSED = "refused"
    """payment-service rejected the request."""
    NO_PAYMENT = "no_payment"
    """The answer is about another order or amount, or is neither PAID nor DECLINED."""
    NO_PRICE = "no_price"
    """The order has no valid price."""


class ChargeRefused(Exception):  # noqa: N818
    """An order cannot be charged because of invalid data or a bug, not because payment is down."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Order:
    """An order.

    Attributes:
        id: Its number.
        user_id: The user who placed it; None if the row was inserted by hand.
        product: The product as it was when it was ordered, with its price.
        quantity: The number of items.
        status: A Status, or any text if the row was inserted by hand.
        payment_id: The payment that settled it.
        created_at: The time at which it was placed.
        traceparent: The trace in which it was placed; None for old orders, which have none.
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
        """Its total price, in the currency's minor unit.

        Raises:
            ChargeRefused: It has no valid price, as is possible in a row that was inserted by hand.
        """
        price = self._of_product("unit_price_minor")
        if type(price) is not int or not 0 <= price <= MAX_PRICE:  # in Python, JSON's true is an int, too
            raise ChargeRefused(Refusal.NO_PRICE)
        return price * self.quantity

    @property
    def currency(self) -> str:
        """The currency's code (ISO 4217). Raises ChargeRefused if it has none."""
        return str(self._of_product("currency"))

    def _of_product(self, name: str) -> Any:
        try:
            return self.product[name]
        except (KeyError, IndexError, TypeError):
            raise ChargeRefused(Refusal.NO_PRICE) from None

    @property
    def payment_key(self) -> str:
        """The idempotency key of its charge. It is made of the id, so all tries together charge only once."""
        return f"order-{self.id}"

    def is_for(self, product_id: int, quantity: int) -> bool:
        """Whether it matches a repeated request with the same idempotency key."""
        try:
            return bool(self.product["id"] == product_id and self.quantity == quantity)
        except (KeyError, IndexError, TypeError):  # a row that was inserted by hand
            return False


@dataclass(frozen=True)
class Settlement:
    """The result of a charge.

    Attributes:
        status: PAID or DECLINED.
        payment_id: The id of the payment.
    """

    status: Status
    payment_id: int
