"""What an order pays for the fault switches while all of them are off: the checks of its three services, in a loop.

They are the services' own, around parts that do nothing.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from bench import measure
from local.rundir import FLAGS
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.stacks import BenchStack, Say

_ORDERS_AT_ONCE = 1000
_CLIENTS = 4


def turns(stack: BenchStack, rounds: int, seconds: float, say: Say) -> Iterator[dict[str, float]]:
    """Measure by turns what a whole order takes in a stack, and its checks: microseconds of processor time, each."""
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        order = measure.turn(stack, _CLIENTS, seconds)
        yield {"order_us": order["cpu_ms"] * 1000, "checks_us": microseconds(seconds)}


def microseconds(seconds: float, file: Path = FLAGS) -> float:
    """Return how much processor time the checks of an order take, in microseconds."""
    check, _ = _order(file)
    orders, begun, end = 0, time.thread_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(_ORDERS_AT_ONCE):
            check()
        orders += _ORDERS_AT_ONCE
    return (time.thread_time() - begun) / orders * 1e6


def asked(file: Path = FLAGS) -> list[str]:
    """Return what an order asks, each time that it does: a flag's name, or `any`."""
    check, seen = _order(file, counting=True)
    check()
    return seen


class _Nothing:
    """Stands for a database, another service's client, or the processor of payments."""

    def fetch_one(self, *_: Any) -> None:
        pass

    def post(self, *_: Any, **__: Any) -> None:
        pass

    def decide(self, *_: Any) -> Any:
        from payment_service.domain import Outcome

        return Outcome.PAID, None


def _order(file: Path, *, counting: bool = False) -> tuple[Callable[[], None], list[str]]:
    """Give what does the checks of one paid order, and the list in which it writes them down if it counts."""
    sys.path[:0] = [str(PROJECT / "services" / part) for part in (".", "order/src", "payment/src")]
    from order_service import faults as of_order
    from payment_service import faults as of_payment
    from payment_service.domain import Charge, Outcome, Payment
    from servicekit.flags import Flags
    from shop.faults import Faults

    seen: list[str] = []

    class Counted(Flags):
        def any_enabled(self) -> bool:
            seen.append("any")
            return super().any_enabled()

        def value(self, key: str, *rest: Any, **about: Any) -> Any:
            seen.append(key)
            return super().value(key, *rest, **about)

    flags = (Counted if counting else Flags)(file, CollectorRegistry(), "bench")
    faults = object.__new__(Faults)  # without a service around it
    faults._flags = flags
    nothing: Any = _Nothing()
    statements = of_order.Statements(nothing, faults)
    client = of_order.Payments(nothing, "http://127.0.0.1:9", lambda _: nothing, faults)
    processor = of_payment.Processor(nothing, faults)
    payments = of_payment.Payments(nothing, faults)
    charge = Charge(1, 1, 1450, "EUR")
    payment = Payment(1, charge, Outcome.PAID, None, datetime.now(UTC))
    product: dict[str, Any] = {"product_id": 1, "tags": ["kitchen"], "currency": "EUR"}

    def check() -> None:
        for _ in ("order", "product", "payment"):
            flags.any_enabled()  # before each request: Faults._meet
        faults.wait("user-slow", "1", product_id=1)
        faults.wait("product-slow", **product)
        faults.is_set("product-errors", **product)
        statements.fetch_one("INSERT orders", "")
        client.post("/internal/charges", {})
        processor.decide("order-1", charge)
        payments._told(payment)  # noqa: SLF001

    return check, seen
