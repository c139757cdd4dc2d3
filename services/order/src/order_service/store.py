"""Access to the schema `orders`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from order_service.domain import Order, Settlement
from servicekit.database.pool import Row

# The baseline column `created_at` has no time zone; it is written and read as UTC.
_COLUMNS = (
    "id, user_id, product, quantity, status, payment_id, traceparent, created_at AT TIME ZONE 'UTC' AS created_at"
)


@dataclass(frozen=True)
class Backlog:
    """The PENDING orders.

    Attributes:
        orders: Their number.
        oldest_seconds: The age of the oldest one in seconds, 0 if there are none.
    """

    orders: int
    oldest_seconds: float


class Statements(Protocol):
    """Runs statements; see `servicekit.database.pool.Database`."""

    def fetch_one(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """Return the only row, or None."""

    def fetch_all(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Return the rows."""


class Orders:
    """Reads and writes orders.

    Args:
        database: The service's database.
        lease_seconds: For how many seconds a PENDING order is reserved for the request or reconciler that works on it.
    """

    def __init__(self, database: Statements, lease_seconds: float) -> None:
        self._database = database
        self._lease = lease_seconds

    def add(  # a row's values
        self, user_id: int, product: Mapping[str, Any], quantity: int, key: str | None, traceparent: str | None
    ) -> Order | None:
        """Store a new PENDING order.

        Args:
            user_id: The user who orders.
            product: The product as it is now.
            quantity: The number of items.
            key: The client's idempotency key.
            traceparent: The current trace.

        Returns:
            The order, or None if this user has used the key before.
        """
        row = self._database.fetch_one(
            "INSERT orders",
            "INSERT INTO orders.orders (user_id, product, quantity, status, idempotency_key, traceparent, charge_after)"  # noqa: S608
            " VALUES (%(user_id)s, %(product)s, %(quantity)s, 'PENDING', %(key)s, %(traceparent)s,"
            " now() + make_interval(secs => %(lease)s))"
            f" ON CONFLICT (user_id, idempotency_key) DO NOTHING RETURNING {_COLUMNS}",
            {
                "user_id": user_id,
                "product": orjson.dumps(product).decode(),
                "quantity": quantity,
                "key": key,
                "traceparent": traceparent,
                "lease": self._lease,
            },
        )
        return None if row is None else _order(row)

    def by_key(self, user_id: int, key: str) -> Order | None:
        """Return the order that this user placed with this idempotency key, None if there is none."""
        row = self._database.fetch_one(
            "SELECT orders",
            f"SELECT {_COLUMNS} FROM orders.orders"  # noqa: S608
            " WHERE user_id = %(user_id)s AND idempotency_key = %(key)s",
            {"user_id": user_id, "key": key},
        )
        return None if row is None else _order(row)

    def by_id(self, order_id: int) -> Order | None:
        """Return an order, None if there is none."""
        row = self._database.fetch_one(
            "SELECT orders",
            f"SELECT {_COLUMNS} FROM orders.orders WHERE id = %(id)s",  # noqa: S608
            {"id": order_id},
        )
        return None if row is None else _order(row)

    def newest(self, user_id: int | None, before_id: int, count: int) -> Sequence[Order]:
        """Return up to `count` orders with ids below `before_id`, newest first; of all users if `user_id` is None."""
        whose = "" if user_id is None else " AND user_id = %(user_id)s"
        rows = self._database.fetch_all(
            "SELECT orders",
            f"SELECT {_COLUMNS} FROM orders.orders WHERE id < %(before)s{whose}"  # noqa: S608
            " ORDER BY id DESC LIMIT %(count)s",
            {"user_id": user_id, "before": before_id, "count": count},
        )
        return [_order(row) for row in rows]

    def settle(self, order_id: int, settlement: Settlement) -> tuple[Order, bool]:
        """Settle an order if it is PENDING.

        Returns:
            The order as it is now, and whether this call settled it.
        """
        row = self._database.fetch_one(
            "UPDATE orders",
            "UPDATE orders.orders SET status = %(status)s, payment_id = %(payment_id)s, updated_at = now()"  # noqa: S608
            f" WHERE id = %(id)s AND status = 'PENDING' RETURNING {_COLUMNS}",
            {"id": order_id, "status": settlement.status.value, "payment_id": settlement.payment_id},
        )
        if row is not None:
            return _order(row), True
        order = self.by_id(order_id)
        assert order is not None, "orders are never deleted"  # noqa: S101
        return order, False

    def lease_pending(self) -> Order | None:
        """Reserve the PENDING order that has been due for longest, and return it; None if none is due.

        SKIP LOCKED and the lease prevent two replicas from taking the same order, without a lock during the charge.
        Orders without a user are skipped: they were inserted by hand, and there is nobody to charge.
        """
        row = self._database.fetch_one(
            "UPDATE orders",
            "UPDATE orders.orders SET charge_after = now() + make_interval(secs => %(lease)s)"  # noqa: S608
            " WHERE id = (SELECT id FROM orders.orders"
            " WHERE status = 'PENDING' AND charge_after <= now() AND user_id IS NOT NULL"
            " ORDER BY charge_after LIMIT 1 FOR UPDATE SKIP LOCKED)"
            f" RETURNING {_COLUMNS}",
            {"lease": self._lease},
        )
        return None if row is None else _order(row)

    def backlog(self) -> Backlog:
        """Return how many orders are PENDING, and how old the oldest one is."""
        row = self._database.fetch_one(
            "SELECT orders",
            "SELECT count(*) AS orders, coalesce(extract(epoch FROM"
            " now() - min(created_at AT TIME ZONE 'UTC')), 0)::float AS oldest"
            " FROM orders.orders WHERE status = 'PENDING' AND user_id IS NOT NULL",
        )
        assert row is not None  # noqa: S101  # an aggregate always returns a row
        return Backlog(row["orders"], row["oldest"])


def _order(row: Row) -> Order:
    return Order(
        id=row["id"],
        user_id=row["user_id"],
        product=row["product"],
        quantity=row["quantity"],
        status=row["status"],
        payment_id=row["payment_id"],
        created_at=row["created_at"],
        traceparent=row["traceparent"],
    )
