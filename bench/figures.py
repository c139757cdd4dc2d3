"""Arithmetic of repeated measurements."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Spread:
    """Some measurements of the same: the middle one, the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up measurements."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0, unit: str = "") -> str:
        """Say it: `480 (470..495)`."""
        if self.low == self.high:
            return f"{self.median:,.{digits}f}{unit}"
        return f"{self.median:,.{digits}f}{unit} ({self.low:,.{digits}f}..{self.high:,.{digits}f})"


def ratios(values: Mapping[int, float], base: Mapping[int, float]) -> Spread | None:
    """Compare with the base round by round: what changes the machine's pace changes both.

    Args:
        values: The measurements by round.
        base: Those of the base.

    Returns:
        The ratios, None when the two have no round in common.
    """
    both = [values[number] / base[number] for number in values if base.get(number)]
    return Spread.of(both) if both else None


def by_round(turns: Sequence[Mapping[str, Any]], row: str, name: str) -> dict[int, float]:
    """Pick one number of one configuration, by round."""
    return {turn["round"]: turn[name] for turn in turns if turn["row"] == row and turn.get(name) is not None}


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Give a round's order: each time another begins, so that none always follows the same."""
    start = number % len(names)
    return [*names[start:], *names[:start]]
