"""Runs a scenario: load, fault, effect, signals, recovery."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

import psutil
import requests

from local.errors import LocalError
from local.settings import PROJECT
from scenarios import acting, shopping, telling
from scenarios.asking import Telemetry
from scenarios.measuring import TRACED_AFTER_SECONDS, Felt, Measure, Observer
from scenarios.outcome import Check, Outcome
from scenarios.promises import Promises, is_slow, noise
from scenarios.shopping import Customers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scenarios.describing import Load, Scenario
    from scenarios.place import Place

_BEFORE_SECONDS = 3.0
_WARM_SECONDS = 1.0
_WINDOW_SECONDS = 3.0
_WINDOWS_FELT = 2
"""Users feel the fault if the measure is high for the time of this many windows."""
_PAUSE_SECONDS = 0.5
_CALM_SECONDS = 90.0
_SETTLE_SECONDS = 10.0
"""The longest time after a fault until its alert fires: a scrape and an evaluation."""
_WELL_SECONDS = 75.0
_WHY_SECONDS = 30
_WHY_AFTER_SECONDS = 3.0
_LEAST_SINCE_SECONDS, _EARLY_SECONDS = 10, 3
_WHY = "observability.why"


class Crowd:
    """A context manager for customers who continue from one scenario to the next, and the observer of their traces.

    Args:
        place: The shop.
        seed: Makes the customers' choices reproducible.
    """

    def __init__(self, place: Place, seed: int = 1) -> None:
        self._place = place
        self._seed = seed
        self._left = contextlib.ExitStack()
        self._there: tuple[Customers, Observer] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def buy(self, load: Load) -> tuple[Customers, Observer]:
        """Change the customers' load from now on.

        Raises:
            ScenarioError: They cannot log in.
        """
        if self._there is None:
            customers = self._left.enter_context(Customers(self._place.gateway, load, self._seed))
            self._there = customers, self._left.enter_context(Observer(self._place, customers))
        self._there[0].change(load)
        return self._there


class Run:
    """One run of one scenario.

    Args:
        scenario: The scenario.
        place: The shop.
        say: Is called with each line about the progress.
        seed: Makes the customers' choices reproducible.
        crowd: The customers, if there are some already.

    Attributes:
        over: When the fault was off again, or when this was made if it never was on (`time.monotonic()`).
    """

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        say: Callable[[str], None],
        seed: int = 1,
        crowd: Crowd | None = None,
    ) -> None:
        self._scenario = scenario
        self._place = place
        self._say = say
        self._seed = seed
        self._crowd = crowd
        self._telemetry = Telemetry(place)
        self._outcome = Outcome(scenario)
        self.over = time.monotonic()

    def go(self) -> Outcome:
        """Run it. The fault is off again afterwards, whatever happens, including Ctrl-C."""
        began = time.monotonic()
        self._say(f"{self._scenario.name} ({self._scenario.kind}): {self._scenario.teaches}")
        if self._place.stack is None and acting.needs_stack(self._scenario.switch):
            self._outcome.skipped = acting.NEEDS_STACK
            self._say(f"  SKIPPED   it {acting.NEEDS_STACK}")
            return self._outcome
        try:
            self._act()
        except (LocalError, OSError, psutil.Error, KeyError) as error:
            self._outcome.checks.append(Check("run", "goes to its end", found=str(error)))
            self._say(f"  BROKEN    {error}")
            self.over = time.monotonic()
        self._outcome.seconds = time.monotonic() - began
        return self._outcome

    def _act(self) -> None:
        scenario, place = self._scenario, self._place
        with Crowd(place, self._seed) if self._crowd is None else contextlib.nullcontext(self._crowd) as crowd:
            self._customers, observer = crowd.buy(scenario.load)
            self._measure = Measure(scenario.effect, self._telemetry, self._customers, observer)
            self._before()
            promises = Promises(scenario, self._telemetry)
            since = time.time()
            with acting.on(scenario.switch, place):
                self._during(promises, since)
            self._after()
            self._asking.join()

    def _before(self) -> None:
        """Let customers buy until none of the expected signals shows, and measure the effect without the fault.

        If the customers have the same load already, and no longer feel the previous fault, that time counts, too.
        """
        outcome, effect = self._outcome, self._scenario.effect
        check = Check("calm", "without the fault, nothing of it shows")
        outcome.checks.append(check)
        late = TRACED_AFTER_SECONDS if effect.measure in {"untraced", "disordered"} else 0.0
        began = time.monotonic()
        time.sleep(max(0.0, self._customers.since + _WARM_SECONDS + _BEFORE_SECONDS + late - began))
        while not check.kept and (waited := time.monotonic() - began) < _CALM_SECONDS:
            outcome.before = self._measure(_BEFORE_SECONDS)
            noisy = noise(self._scenario, self._telemetry)
            check.found = ", ".join(noisy) or self._measure.shown(outcome.before)
            if not noisy and outcome.before is not None and outcome.before <= effect.before:
                check.keep(waited, check.found)
            else:
                time.sleep(_PAUSE_SECONDS)
        calm = "" if check.kept else f"  NOT CALM: {check.found}"
        self._say(f"  before    {self._measure.name}: {self._measure.shown(outcome.before)}{calm}")

    def _during(self, promises: Promises, since: float) -> None:
        """Look for the expected signals until all were seen, or until the scenario's time limit.

        Meanwhile, `make why` is started as soon as users feel the fault and its traces and log lines are there. It
        analyses that moment, so it may answer after the fault is off.

        Args:
            promises: The expected signals.
            since: A time before the fault was switched on (Unix time), since switching may take a while.
        """
        scenario, outcome = self._scenario, self._outcome
        self._on = on = time.monotonic()
        self._say(f"  on        {_switched(scenario)}")
        effect = Check("effect", scenario.effect.felt)
        felt = Felt(scenario.effect.during, _WINDOWS_FELT * _WINDOW_SECONDS)
        promised = [effect, *promises.checks]
        outcome.checks += promised
        self._list("BEFORE", (check for check in promised if not check.binding))
        raised: dict[str, float] = {}
        self._asking = threading.Thread(target=self._why, daemon=True)
        while (past := time.monotonic() - on) < scenario.patience:
            if past > _WHY_AFTER_SECONDS and all(check.kept or not check.binding for check in promised):
                break
            time.sleep(_PAUSE_SECONDS)
            self._feel(effect, felt, past)
            alerts = self._alerts()
            fresh = [name for name, (_, active) in (alerts or {}).items() if active >= since]
            raised = {**dict.fromkeys(fresh, past), **raised}
            for check, found in promises.look(since, alerts):
                check.keep(past, found)
                self._tell(check)
            told = all(check.kept for check in promised if check.kind in {"effect", "trace", "log"})
            if told and past > _WHY_AFTER_SECONDS and self._asking.ident is None:
                self._asking.start()
        if self._asking.ident is None:
            self._asking.start()
        self._list("MISSING", (check for check in promised if check.binding and not check.kept))
        self._silence(raised)

    def _list(self, word: str, checks: Iterable[Check]) -> None:
        for check in checks:
            self._say(f"  {word:<9} {check.kind}: {check.what} {check.found}")

    def _feel(self, effect: Check, felt: Felt, past: float) -> None:
        """Measure the effect on users, once the fault has been on for long enough."""
        value = self._measure(min(_WINDOW_SECONDS, past))
        if effect.kept or value is None or past < _WINDOW_SECONDS / 2:
            return
        felt.add(past, value)
        self._outcome.during = felt.level
        effect.found = f"{self._measure.shown(felt.level)} at most, and not for long enough"
        if felt.enough:
            effect.keep(past, self._measure.shown(felt.level))
            self._tell(effect)

    def _silence(self, raised: dict[str, float]) -> None:
        for name in self._scenario.silent:
            self._outcome.checks.append(Check("silent", name, raised.get(name), kept=name not in raised))
            if name in raised:
                self._say(f"  NOISE     alert: {name} was raised after {raised[name]:.1f} s")

    def _alerts(self) -> dict[str, tuple[str, float]] | None:
        try:
            return self._telemetry.alerts()
        except requests.RequestException:
            return None

    def _tell(self, check: Check) -> None:
        self._say(f"  {check.seconds:5.1f} s   {check.kind}: {check.what}  [{check.found}]")

    def _why(self) -> None:
        """Check whether `make why`, if available, finds the cause. The scenario does not fail if it does not."""
        if not find_spec(_WHY):
            return
        truth, began = self._scenario.truth, time.monotonic()
        check = Check("why", "names service, operation and attribute first", binding=False)
        self._outcome.checks.append(check)
        try:
            done = subprocess.run(
                [sys.executable, "-m", _WHY, "--json", "--at", f"{time.time():.3f}", "--since", self._since()],
                cwd=PROJECT,
                env={**os.environ, **_backends(self._place)},
                capture_output=True,
                text=True,
                check=False,
                timeout=_WHY_SECONDS,
            )
            check.found, check.kept = telling.of_why(json.loads(done.stdout), truth)
        except (subprocess.TimeoutExpired, ValueError, AttributeError):
            check.found = "no answer"
        check.seconds = time.monotonic() - began
        self._say(f"  why       {check.found}  ({check.seconds:.1f} s)")

    def _since(self) -> str:
        """Return when the trouble began, a little too early, as a person on call would. Other faults were before."""
        return f"{max(_LEAST_SINCE_SECONDS, math.ceil(time.monotonic() - self._on) + _EARLY_SECONDS)}s"

    def _after(self) -> None:
        """Check that everything is well again."""
        outcome, effect = self._outcome, self._scenario.effect
        check = Check("recovery", "well again when it is off")
        outcome.checks.append(check)
        self.over = time.monotonic()
        time.sleep(_WINDOW_SECONDS)
        while not check.kept and (past := time.monotonic() - self.over) < _WELL_SECONDS:
            outcome.after = self._measure(_WINDOW_SECONDS)
            answers = self._customers.between(time.monotonic() - _WINDOW_SECONDS, time.monotonic())
            if outcome.after is not None and outcome.after <= effect.before and not shopping.failed(answers):
                check.keep(past, self._measure.shown(outcome.after))
            else:
                time.sleep(_PAUSE_SECONDS)
        well = f"well again after {past:.1f} s" if check.kept else f"NOT WELL AGAIN after {past:.0f} s"
        self._say(f"  off       {well}: {self._measure.shown(outcome.after)}")


def in_turn(
    scenarios: Iterable[Scenario], place: Place, say: Callable[[str], None], seed: int = 1
) -> Iterator[Outcome]:
    """Run scenarios one after the other, in an order in which they disturb each other little.

    A scenario's signals need a minute to disappear, so scenarios with other signals run before one with the same.
    Scenarios that must raise an alert about a budget come first, because other scenarios may raise it, too, and it
    stays for minutes. The very first is the one about latency, since a busy machine raises its alert sooner or later.
    Customers go on buying, so that the time after one scenario is the time before the next.
    """
    telemetry, left, load, over = Telemetry(place), list(scenarios), None, -math.inf
    count = len(left)
    with Crowd(place, seed) as crowd:
        while left:
            time.sleep(max(0.0, over + _SETTLE_SECONDS - time.monotonic()))
            scenario = _quiet(left, telemetry, load)
            left.remove(scenario)
            load = scenario.load
            if count > 1:
                say(f"{count - len(left)} of {count}")
            run = Run(scenario, place, say, seed, crowd)
            yield run.go()
            over = run.over


def _quiet(left: list[Scenario], telemetry: Telemetry, load: Load | None) -> Scenario:
    """Choose the scenario with the fewest visible signals; first those whose alerts other scenarios need, too."""

    def rank(each: Scenario) -> tuple[bool, bool, int, bool]:
        alerts = set(each.signals.alerts)
        slow = any(map(is_slow, alerts))
        sharing = sum(not alerts.isdisjoint(other.signals.alerts) for other in left if other is not each)
        return not slow, slow and each.kind != "latency", -sharing, each.load != load

    least = {}
    for each in sorted(left, key=rank):
        try:
            found = len(noise(each, telemetry))
        except requests.RequestException:
            found = 0  # its run will report the failure
        if not found:
            return each
        least[each.name] = found
    return min(left, key=lambda each: least[each.name])


def _backends(place: Place) -> dict[str, str]:
    """Return the settings of `make why` for this shop, which may not be the one that its own settings name."""
    folder = {} if place.stack is None else {"RUN_DIR": str(place.stack.run_dir)}
    return folder | {f"{name.upper()}_URL": getattr(place, name) for name in ("jaeger", "loki", "prometheus")}


def _switched(scenario: Scenario) -> str:
    said = scenario.switch.model_dump(exclude_none=True)
    return ", ".join(f"{name}: {value}" for name, value in said.items() if value)
