"""What the clients were told, what the database has, and whether the two agree."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtest.records import Attempt
    from local.orderdb import Ask

SHOWN = 20
"""Wrong entries that are told one by one; the others are only counted."""

_SETTLED = {"PAID", "DECLINED"}

# Each of the run's orders, with its charges. Without an index on the key's beginning this reads the whole table once.
_ROWS = """
WITH mine AS (
    SELECT id, status, idempotency_key, product->>'id' AS product_id, quantity, payment_id,
           (product->>'unit_price_minor')::bigint * quantity AS amount
    FROM orders.orders WHERE idempotency_key LIKE '{run}-%'
), charges AS (
    SELECT order_id, json_agg(json_build_array(p.id, outcome, amount_minor)) AS charges
    FROM payments.payments p JOIN mine ON mine.id = p.order_id GROUP BY order_id
)
SELECT coalesce(json_agg(json_build_array(
    mine.id, status, idempotency_key, product_id, quantity, payment_id, amount, coalesce(charges, '[]'))), '[]')
FROM mine LEFT JOIN charges ON charges.order_id = mine.id
"""
_PENDING = "SELECT to_json(count(*)) FROM orders.orders WHERE status = 'PENDING' AND idempotency_key LIKE '{run}-%'"


@dataclass(frozen=True)
class Row:
    """An order as it is in the database."""

    order_id: int
    status: str
    key: str
    product_id: str
    quantity: int
    payment_id: int | None
    amount: int | None
    charges: list[tuple[int, str, int]]
    """Payment's rows for it: id, outcome, amount."""


@dataclass
class Books:
    """The outcome."""

    told: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    """The told orders by the status that they have in the end."""
    settled_late: int = 0
    """Orders that were PENDING when the client was told, and are settled now."""
    unanswered: int = 0
    unanswered_kept: Counter[str] = field(default_factory=Counter)
    """Unanswered orders that are in the database, by status. Nobody can know of these without asking."""
    wrong: list[str] = field(default_factory=list)
    """What does not agree."""
    seconds: float = 0.0

    @property
    def balanced(self) -> bool:
        """Whether all agrees."""
        return not self.wrong

    def summary(self) -> dict[str, Any]:
        """Give it for programs."""
        return {
            "balanced": self.balanced,
            "told": self.told,
            "by_status": dict(self.by_status),
            "settled_late": self.settled_late,
            "unanswered": self.unanswered,
            "unanswered_kept": dict(self.unanswered_kept),
            "wrong": len(self.wrong),
            "examples": self.wrong[:SHOWN],
            "seconds": self.seconds,
        }


def check(ask: Ask, run: str, attempts: Iterable[Attempt], settle_seconds: float) -> Books:
    """Wait until no order of the run is PENDING, then compare.

    Args:
        ask: Asks the order database.
        run: With which the keys of the run begin.
        attempts: All orders that were sent.
        settle_seconds: How long orders may take to be settled.

    Raises:
        LocalError: The database cannot be asked.
    """
    began = time.monotonic()
    while ask(_PENDING.format(run=run)) and time.monotonic() - began < settle_seconds:
        time.sleep(0.5)
    books = compare(attempts, [Row(*values) for values in ask(_ROWS.format(run=run))])
    books.seconds = time.monotonic() - began
    return books


def compare(attempts: Iterable[Attempt], rows: Iterable[Row]) -> Books:
    """Compare what clients were told with what the database has."""
    books = Books()
    kept: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kept[row.key].append(row)
    for attempt in attempts:
        found = kept.pop(attempt.key, [])
        for row in found:
            books.wrong += _wrong_in(row, attempt)
        if len(found) > 1:
            ids = ", ".join(str(row.order_id) for row in found)
            books.wrong.append(f"one order is there {len(found)} times: orders {ids}")
        match attempt.answer:
            case "told":
                books.told += 1
                _told(books, attempt, found)
            case "refused":
                books.wrong += [f"order {row.order_id}: refused, and yet in the database" for row in found]
            case "unanswered":
                books.unanswered += 1
                books.unanswered_kept.update(row.status for row in found)
    for unrecorded in kept.values():  # a process was killed before it could say what it had sent
        books.unanswered += 1
        books.unanswered_kept.update(row.status for row in unrecorded)
        for row in unrecorded:
            books.wrong += _wrong_in(row, None)
    return books


def _told(books: Books, attempt: Attempt, found: list[Row]) -> None:
    row = next((row for row in found if row.order_id == attempt.order_id), None)
    if row is None:
        books.wrong.append(f"order {attempt.order_id}: the client was told {attempt.status}, and it is not there")
        return
    books.by_status[row.status] += 1
    if attempt.status == row.status:
        return
    if attempt.status == "PENDING":
        books.settled_late += 1
    else:
        books.wrong.append(f"order {row.order_id}: the client was told {attempt.status}, and it is {row.status}")


def _wrong_in(row: Row, attempt: Attempt | None) -> list[str]:
    """Find what is wrong with an order itself: its content, and its charges."""
    wrong = []
    if attempt and (row.product_id, row.quantity) != (str(attempt.product_id), attempt.quantity):
        wrong.append(f"order {row.order_id}: it is not what was ordered")
    if row.status not in _SETTLED:
        wrong.append(f"order {row.order_id}: still {row.status}")
        return wrong
    outcomes = [outcome for _, outcome, _ in row.charges]
    if outcomes != [row.status]:
        wrong.append(f"order {row.order_id}: {row.status}, and its charges are {outcomes or 'none'}")
    elif row.charges[0][0] != row.payment_id:
        wrong.append(f"order {row.order_id}: its charge is {row.charges[0][0]}, and it names {row.payment_id}")
    elif row.charges[0][2] != row.amount:
        wrong.append(f"order {row.order_id}: it costs {row.amount}, and {row.charges[0][2]} was charged")
    return wrong
