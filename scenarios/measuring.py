"""Measures what users feel: by the answers that customers get, and by whether their traces can be found."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

import requests

from scenarios import shopping
from scenarios.asking import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenarios.describing import Effect
    from scenarios.place import Place
    from scenarios.shopping import Answer, Customers

TRACED_AFTER_SECONDS = 3.0
"""Seconds after an order at which its trace is looked for."""

_PAUSE_SECONDS = 0.5
_MEASURES: dict[str, Callable[[list[Answer]], float]] = {
    "p95": shopping.p95,
    "errors": shopping.failed,
    "pending": lambda answers: shopping.share(answers, 202),
    "declined": lambda answers: shopping.share(answers, 402),
    "refused": lambda answers: shopping.share(answers, 429),
}


class Observer:
    """A context manager that checks whether new orders can be found as traces.

    Args:
        place: The shop.
        customers: The customers who place the orders.
    """

    def __init__(self, place: Place, customers: Customers) -> None:
        self._telemetry = Telemetry(place)
        self._customers = customers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._seen: deque[tuple[float, bool, bool]] = deque(maxlen=1000)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def share(self, since: float, until: float, *, untraced: bool) -> float | None:
        """Return the share of orders with an incomplete trace (`untraced`) or a disordered one; None without orders."""
        seen = [(whole, inside) for at, whole, inside in list(self._seen) if since <= at < until]
        bad = [not (whole if untraced else inside) for whole, inside in seen]
        return sum(bad) / len(bad) if bad else None

    def _look(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            ripe = time.monotonic() - TRACED_AFTER_SECONDS
            orders = [
                each
                for each in self._customers.between(ripe - 1, ripe)
                if each.route == "POST /orders/" and each.trace_id
            ]
            if not orders:
                continue
            try:
                whole, inside = self._telemetry.whole(orders[-1].trace_id)
            except (requests.RequestException, ValueError):
                whole, inside = False, True
            self._seen.append((time.monotonic(), whole, inside))


class Felt:
    """Tells whether a measure stayed high for long enough, since a single value may be high by chance.

    Args:
        least: The value from which it counts as high.
        seconds: How long it has to stay high.

    Attributes:
        level: The lowest value of that time once it was long enough; until then the highest value so far.
        enough: Whether it stayed high for long enough.
    """

    def __init__(self, least: float, seconds: float) -> None:
        self._least = least
        self._seconds = seconds
        self._high: list[tuple[float, float]] = []
        self.level = 0.0
        self.enough = False

    def add(self, at: float, value: float) -> None:
        """Add a value with the time at which it was measured."""
        if self.enough:
            return
        self.level = max(self.level, value)
        self._high = [*self._high, (at, value)] if value >= self._least else []
        if self._high and at - self._high[0][0] >= self._seconds:
            self.enough, self.level = True, min(value for _, value in self._high)


class Measure:
    """Measures an effect.

    Args:
        effect: The effect.
        telemetry: Runs the effect's `query`, if it has one.
        customers: The customers who feel it.
        observer: Checks the traces of their orders.
    """

    def __init__(self, effect: Effect, telemetry: Telemetry, customers: Customers, observer: Observer) -> None:
        self._effect = effect
        self._telemetry = telemetry
        self._customers = customers
        self._observer = observer

    def __call__(self, seconds: float) -> float | None:
        """Return its value over the last `seconds`; None if there was nothing to measure."""
        effect, now = self._effect, time.monotonic()
        if effect.query is not None:
            try:
                if effect.measure == "crowding":
                    return self._telemetry.crowding(effect.query)
                return max(self._telemetry.query(effect.query), default=0.0)
            except requests.RequestException:
                return None
        if effect.measure in {"untraced", "disordered"}:
            return self._observer.share(now - seconds, now, untraced=effect.measure == "untraced")
        answers = self._customers.between(now - seconds, now, effect.of)
        return _MEASURES[effect.measure](answers) if answers else None

    @property
    def name(self) -> str:
        """A name for what is measured."""
        effect = self._effect
        if effect.query is not None:
            return f"crowding of {effect.query}" if effect.measure == "crowding" else effect.query
        products = f" for products {', '.join(map(str, effect.of.products))}" if effect.of.products else ""
        whose = {None: "", True: " by the demo login", False: " by others"}[effect.of.demo_login]
        return f"{effect.measure} of {effect.of.route}{products}{whose}"

    def shown(self, value: float | None) -> str:
        """Format a value for people."""
        if value is None:
            return "not measured"
        if self._effect.measure == "p95":
            return f"{value * 1000:.0f} ms"
        return f"{value:.4g}" if self._effect.measure == "query" else f"{value:.0%}"
