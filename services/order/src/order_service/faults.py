"""Faults of order-service; see `shop.faults`."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from order_service import ordering
from order_service.domain import Order
from servicekit.calls.client import Reply, ServiceClient
from servicekit.database.pool import Database, Row
from servicekit.web.errors import DependencyUnavailable
from shop.faults import Faults
from shop.link import Link

FLAGS = ("user-slow", "orders-lock", "orders-scan", "orders-column", "pool-exhausted", "disk-full", "payment-link")
"""The flags that are evaluated here."""

_HOLD_SECONDS = 2  # less than the time limit of a statement


class Ordering(ordering.Ordering):
    """Delays the orders of some users while the fault is on; see the base class."""

    def __init__(self, *parts: Any, faults: Faults) -> None:
        super().__init__(*parts)
        self._faults = faults

    def place(self, user_id: int, product_id: int, quantity: int, key: str | None) -> tuple[Order, bool]:
        """Place an order; see the base class."""
        self._faults.wait("user-slow", str(user_id), product_id=product_id)
        return super().place(user_id, product_id, quantity, key)


class Statements:
    """Runs statements. While a fault is on, some read too many rows, use a missing column, or find a full disk.

    Args:
        database: Runs the statements.
        faults: The faults that are on.
    """

    def __init__(self, database: Database, faults: Faults) -> None:
        self._database = database
        self._faults = faults

    def fetch_one(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """See `Database`."""
        return self._database.fetch_one(summary, self._spoilt(summary, sql), parameters)

    def fetch_all(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """See `Database`."""
        return self._database.fetch_all(summary, self._spoilt(summary, sql), parameters)

    def _spoilt(self, summary: str, sql: str) -> str:
        if summary == "INSERT orders":
            if self._faults.is_set("disk-full"):  # PostgreSQL's own answer when its volume is full
                return "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
            if self._faults.is_set("orders-column"):  # as if a release came before its migration
                return sql.replace(" RETURNING id,", " RETURNING id, discount_minor,")
        if summary == "SELECT orders" and " WHERE id = " in sql and (rows := self._faults.amount("orders-scan")):
            # Reads as many rows as a scan of a table without an index.
            return f"{sql} AND (SELECT count(n) FROM generate_series(1, {rows}) AS n) > 0"  # noqa: S608  # a number
        return sql


class Nuisance:
    """Does what other users of a database may do: locks the table of orders, and takes connections of the pool.

    Args:
        database: The service's database.
        faults: The faults that are on.
    """

    def __init__(self, database: Database, faults: Faults) -> None:
        self._database = database
        self._faults = faults
        self._reports: list[threading.Thread] = []

    def round(self, _stopping: Callable[[], bool]) -> None:
        """Apply the faults that are on, for a short time."""
        if milliseconds := self._faults.amount("orders-lock"):
            # Statements that are sent together are one transaction.
            self._sleep("LOCK orders", milliseconds / 1000, "LOCK TABLE orders.orders IN ACCESS EXCLUSIVE MODE; ")
        self._reports = [report for report in self._reports if report.is_alive()]
        for _ in range(self._faults.amount("pool-exhausted") - len(self._reports)):
            report = threading.Thread(target=self._sleep, args=("SELECT report", _HOLD_SECONDS), daemon=True)
            self._reports.append(report)
            report.start()

    def _sleep(self, summary: str, seconds: float, first: str = "") -> None:
        with suppress(DependencyUnavailable):
            self._database.fetch_one(summary, f"{first}SELECT pg_sleep({seconds})")


class Payments:
    """The client of payment-service, which uses a bad network while the fault is on; see `ServiceClient`.

    Args:
        direct: The client.
        url: The address of payment-service.
        through: Creates a client for another address.
        faults: The faults that are on.
    """

    def __init__(
        self, direct: ServiceClient, url: str, through: Callable[[str], ServiceClient], faults: Faults
    ) -> None:
        self._direct = direct
        self._url = urlsplit(url)
        self._through = through
        self._faults = faults
        self._lock = threading.Lock()
        self._linked: tuple[Link, ServiceClient] | None = None

    def post(self, route: str, body: Mapping[str, Any], **options: Any) -> Reply:
        """See `ServiceClient`."""
        kind = self._faults.kind("payment-link")
        return (self._by_link(kind) if kind else self._direct).post(route, body, **options)

    def _by_link(self, kind: str) -> ServiceClient:
        with self._lock:
            if self._linked is None:
                link = Link(self._url.hostname or "", self._url.port or 80)
                self._linked = link, self._through(link.url)
            link, client = self._linked
        link.kind = kind
        return client
