"""Payments."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """The result of a charge."""

    PAID = "PAID"
    DECLINED = "DECLINED"


class PaymentNotFound(Exception):  # noqa: N818  # named after what happened
    """There is no such payment, or it belongs to another user."""

    def __init__(self, payment_id: int) -> None:
        super().__init__(f"There is no payment {payment_id}.")


class KeyReused(Exception):  # noqa: N818
    """The idempotency key was used for another charge."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: it was used for another charge.")


class ProcessorDown(Exception):  # noqa: N818
    """The payment processor does not answer."""

    def __init__(self) -> None:
        super().__init__("The payment processor does not answer.")


@dataclass(frozen=True)
class Charge:
    """A charge that was requested."""

    order_id: int
    user_id: int
    amount_minor: int
    currency: str


@dataclass(frozen=True)
class Payment:
    """A charge that has been decided."""

    id: int
    charge: Charge
    outcome: Outcome
    decline_reason: str | None
    created_at: datetime
