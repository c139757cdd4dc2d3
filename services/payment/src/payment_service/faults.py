"""Faults of payment-service; see `shop.faults`."""

from dataclasses import replace
from typing import Protocol

from payment_service.domain import Charge, Outcome, Payment, ProcessorDown
from payment_service.store import Payments as Plain
from servicekit.database.pool import Database
from shop.faults import Faults

FLAGS = ("payment-slow", "currency-slow", "payment-down", "payment-flaky", "payment-declines", "payment-wrong")
"""The flags that are evaluated here."""


class _Decides(Protocol):
    def decide(self, key: str, charge: Charge) -> tuple[Outcome, str | None]: ...


class Processor:
    """A processor that is slow, does not answer, or declines while a fault is on.

    Args:
        inner: The processor without faults.
        faults: The faults that are on.
    """

    def __init__(self, inner: _Decides, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    def decide(self, key: str, charge: Charge) -> tuple[Outcome, str | None]:
        """Decide as the processor without faults does, unless a fault prevents it."""
        about = {"order_id": str(charge.order_id), "currency": charge.currency}
        self._faults.wait("payment-slow", **about)
        self._faults.wait("currency-slow", **about)
        if self._faults.is_set("payment-down", **about) or self._faults.is_set("payment-flaky", **about):
            raise ProcessorDown
        outcome, reason = self._inner.decide(key, charge)
        if outcome is Outcome.PAID and self._faults.is_set("payment-declines", **about):
            return Outcome.DECLINED, "declined_by_bank"
        return outcome, reason


class Payments(Plain):
    """Returns payments with a wrong amount while the fault is on; see the base class."""

    def __init__(self, database: Database, faults: Faults) -> None:
        super().__init__(database)
        self._faults = faults

    def record(self, key: str, charge: Charge, outcome: Outcome, decline_reason: str | None) -> tuple[Payment, bool]:
        """See the base class."""
        payment, is_new = super().record(key, charge, outcome, decline_reason)
        return self._told(payment), is_new

    def recorded(self, key: str, charge: Charge) -> Payment | None:
        """See the base class."""
        payment = super().recorded(key, charge)
        return None if payment is None else self._told(payment)

    def _told(self, payment: Payment) -> Payment:
        charge = payment.charge
        if self._faults.is_set("payment-wrong", order_id=str(charge.order_id)):
            return replace(payment, charge=replace(charge, amount_minor=charge.amount_minor + 1))
        return payment
