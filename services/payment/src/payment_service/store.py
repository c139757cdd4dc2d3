"""Access to the schema `payments`."""

from payment_service.domain import Charge, KeyReused, Outcome, Payment
from servicekit.database.pool import Database, Row

_COLUMNS = "id, order_id, user_id, amount_minor, currency, outcome, decline_reason, created_at"


class Payments:
    """Reads and writes payments.

    Args:
        database: The service's database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_id(self, payment_id: int) -> Payment | None:
        """Return a payment, None if there is none."""
        row = self._database.fetch_one(
            "SELECT payments",
            f"SELECT {_COLUMNS} FROM payments.payments WHERE id = %(id)s",  # noqa: S608  # our own constant
            {"id": payment_id},
        )
        return None if row is None else _payment(row)

    def record(self, key: str, charge: Charge, outcome: Outcome, decline_reason: str | None) -> tuple[Payment, bool]:
        """Store a decided charge under its key, or return the one that is stored already.

        The row is the charge: its commit moves the money, and its unique key makes sure that this happens only once.

        Returns:
            The payment, and whether this call stored it.

        Raises:
            KeyReused: The key was used for another charge.
        """
        row = self._database.fetch_one(
            "INSERT payments",
            "INSERT INTO payments.payments"  # noqa: S608
            " (idempotency_key, order_id, user_id, amount_minor, currency, outcome, decline_reason)"
            " VALUES (%(key)s, %(order_id)s, %(user_id)s, %(amount_minor)s, %(currency)s, %(outcome)s, %(reason)s)"
            f" ON CONFLICT (idempotency_key) DO NOTHING RETURNING {_COLUMNS}",
            {
                "key": key,
                "order_id": charge.order_id,
                "user_id": charge.user_id,
                "amount_minor": charge.amount_minor,
                "currency": charge.currency,
                "outcome": outcome.value,
                "reason": decline_reason,
            },
        )
        if row is not None:
            return _payment(row), True
        recorded = self.recorded(key, charge)
        assert recorded is not None, "payments are never deleted"  # noqa: S101
        return recorded, False

    def recorded(self, key: str, charge: Charge) -> Payment | None:
        """Return the payment that is stored under a key, None if there is none.

        Raises:
            KeyReused: The key was used for another charge.
        """
        row = self._database.fetch_one(
            "SELECT payments",
            f"SELECT {_COLUMNS} FROM payments.payments WHERE idempotency_key = %(key)s",  # noqa: S608
            {"key": key},
        )
        if row is None:
            return None
        payment = _payment(row)
        if payment.charge != charge:
            raise KeyReused
        return payment


def _payment(row: Row) -> Payment:
    charge = Charge(row["order_id"], row["user_id"], row["amount_minor"], row["currency"])
    return Payment(row["id"], charge, Outcome(row["outcome"]), row["decline_reason"], row["created_at"])
