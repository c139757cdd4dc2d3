"""The outcome of a scenario, with a check for each of its signals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenarios.describing import Scenario

BEFORE = "was on before the fault: not proven by this run"
"""For an alert about a budget. It looks back so far that it may still fire when the next fault begins."""


@dataclass
class Check:
    """An expectation, and whether it was met.

    Attributes:
        kind: calm, effect, alert, trace, log, metric, panel, silent, why or recovery.
        what: The expectation.
        seconds: After how many seconds it was met; None if it was not.
        found: What was seen.
        kept: Whether it was met.
        binding: Whether the scenario fails if it was not met.
    """

    kind: str
    what: str
    seconds: float | None = None
    found: str = ""
    kept: bool = False
    binding: bool = True

    def keep(self, seconds: float, found: str) -> None:
        """Record that it was met."""
        self.kept, self.seconds, self.found = True, seconds, found


@dataclass
class Outcome:
    """The outcome of a scenario.

    Attributes:
        scenario: The scenario.
        checks: Its expectations, met or not.
        before: The effect's measure before the fault.
        during: The measure during the fault: its lowest value while users felt it, or the highest if they did not.
        after: The measure at the end.
        seconds: How long the run took.
        skipped: Why it was not run; empty if it was.
    """

    scenario: Scenario
    checks: list[Check] = field(default_factory=list)
    before: float | None = None
    during: float | None = None
    after: float | None = None
    seconds: float = 0.0
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether all binding expectations were met; also true if the scenario was not run."""
        return all(check.kept for check in self.checks if check.binding)

    def of(self, *kinds: str) -> list[Check]:
        """Return the checks of these kinds."""
        return [check for check in self.checks if check.kind in kinds]
