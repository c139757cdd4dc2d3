"""Lets customers buy, switches a fault on for a while, and records the times."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from scenarios import acting
from scenarios.asking import Telemetry
from scenarios.dataset.health import HEALTH
from scenarios.errors import ScenarioError
from scenarios.measuring import TRACED_AFTER_SECONDS, Measure, Observer
from scenarios.promises import noise
from scenarios.shopping import Customers

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenarios.describing import Scenario
    from scenarios.place import Place

_CALM_SECONDS = 120.0
_CALM_WINDOW, _WINDOW = 4.0, 3.0
_WARM_SECONDS = 15.0
"""Seconds of load before the recording, because rates over a quarter of a minute rise for that long."""
_PAUSE = 0.5
_ARRIVES_SECONDS = 6.0
"""Seconds until all telemetry can be queried: spans and lines take half a second, metrics a scrape interval of 5 s."""


class NotFelt(ScenarioError):
    """A run that is no example of its fault: users did not feel it, or the shop was not well before or after it."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The seconds of a run that are recorded before, during and after the fault."""

    before: float = 60.0
    during: float = 60.0
    after: float = 15.0


@dataclass(kw_only=True)
class Recorded:
    """The times of a run, in seconds since 1970."""

    start: float = 0.0
    on: float = 0.0
    off: float = 0.0
    end: float = 0.0
    measured: str = ""
    """The effect's measure, before the fault and its highest value during the fault."""
    before: float | None = None
    during: float | None = None


def record(  # noqa: PLR0913, PLR0917  # all are needed for a run
    scenario: Scenario,
    place: Place,
    seed: int,
    lengths: Lengths,
    say: Callable[[str], None],
    asked: Callable[[], None] = lambda: None,
) -> Recorded:
    """Run the scenario. The fault is off again afterwards, whatever happens.

    Args:
        scenario: The scenario.
        place: The shop.
        seed: Makes the customers' choices reproducible.
        lengths: The least seconds of each part.
        say: Is called with each line about the progress.
        asked: Is called at the end of the fault, while it is still on.

    Raises:
        NotFelt: The shop was not calm before, or nobody felt the fault.
    """
    telemetry, found = Telemetry(place), Recorded()
    with Customers(place.gateway, scenario.load, seed) as customers, Observer(place, customers) as observer:
        measure = Measure(scenario.effect, telemetry, customers, observer)
        found.measured = measure.name
        say("waiting until all is calm")
        _calm(scenario, telemetry, measure)
        say(f"{lengths.before:.0f} s before the fault")
        found.before = _quiet(scenario, measure, lengths.before)
        found.on = time.time()
        found.start = found.on - lengths.before
        healthy = scenario is HEALTH
        with nullcontext() if healthy else acting.on(scenario.switch, place):
            say(f"{lengths.during:.0f} s {'more' if healthy else 'of the fault'}")
            _feel(scenario, measure, found, lengths.during)
            if healthy and (found.during or 0.0) > scenario.effect.before:
                raise NotFelt(f"It was not healthy ({measure.name}: {measure.shown(found.during)}).")
            asked()
            found.off = time.time()
        say(f"{lengths.after:.0f} s after the fault")
        time.sleep(lengths.after)
        found.end = time.time()
    time.sleep(_ARRIVES_SECONDS)
    return found


def _calm(scenario: Scenario, telemetry: Telemetry, measure: Measure) -> None:
    late = TRACED_AFTER_SECONDS if scenario.effect.measure in {"untraced", "disordered"} else 0.0
    ends = time.monotonic() + _CALM_SECONDS
    time.sleep(_WARM_SECONDS + late)
    while True:
        noisy, value = ["the telemetry does not answer"], None
        with suppress(requests.RequestException):
            noisy, value = noise(scenario, telemetry), measure(_CALM_WINDOW)
        if not noisy and value is not None and value <= scenario.effect.before:
            return
        if time.monotonic() > ends:
            raise NotFelt(f"It does not become calm: {', '.join(noisy) or measure.shown(value)}.")
        time.sleep(_PAUSE)


def _quiet(scenario: Scenario, measure: Measure, seconds: float) -> float:
    """Wait until everything has been well for this time; return the effect's measure meanwhile."""
    ends = time.monotonic() + seconds + _CALM_SECONDS
    time.sleep(seconds)
    while (value := measure(seconds)) is None or value > scenario.effect.before:
        if time.monotonic() > ends:
            raise NotFelt(f"It was not calm before the fault ({measure.name}: {measure.shown(value)}).")
        time.sleep(_PAUSE)
    return value


def _feel(scenario: Scenario, measure: Measure, found: Recorded, seconds: float) -> None:
    effect, began = scenario.effect, time.monotonic()
    while True:
        time.sleep(_PAUSE)
        past = time.monotonic() - began
        value = measure(min(_WINDOW, past))
        if value is not None and past > _WINDOW / 2:
            found.during = max(found.during or 0.0, value)
        felt = found.during is not None and found.during >= effect.during
        if felt and past >= seconds:
            return
        if past >= max(seconds, scenario.patience):
            raise NotFelt(f"Nobody felt it ({measure.name}: {measure.shown(found.during)}).")
