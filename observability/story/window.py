"""The time that a page shows, as its URL says it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CHOICES = {
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "3h": 10_800,
    "6h": 21_600,
    "24h": 86_400,
    "3d": 259_200,
    "7d": 604_800,
}
DEFAULT = "15m"
_POINTS = 120
_DAY = 86_400
_LABELS = 5
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, _DAY)
_MILLISECONDS = re.compile(r"[0-9]{10,15}")
_FIELD = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")


@dataclass(frozen=True)
class Window:
    """From when to when, in seconds since 1970.

    `name` is one of CHOICES, or empty for a fixed time; `back` is the one of CHOICES that was shown before that.
    """

    start: float
    end: float
    name: str = ""
    back: str = ""

    @classmethod
    def read(cls, args: Mapping[str, str], now: float, default: str = DEFAULT) -> Window:
        """Read `range=15m`, or `from` and `to`; what is none of both is the default.

        They are in milliseconds since 1970, or as a field of a form gives them, which is UTC.
        """
        begin, end = _moment(args.get("from", "")), _moment(args.get("to", ""))
        if begin is not None and end is not None and begin < end:
            back = args.get("back", "")
            return cls(begin, end, back=back if back in CHOICES else "")
        name = args.get("range", "")
        name = name if name in CHOICES else default
        return cls(now - CHOICES[name], now, name)

    @property
    def step(self) -> int:
        """Seconds from point to point: what Prometheus scrapes in, or more."""
        return max(5, round((self.end - self.start) / _POINTS))

    @property
    def form(self) -> str:
        """How exactly a time on the axis is written: `second`, `minute`, or `day` with its date."""
        if self.end - self.start >= _DAY:
            return "day"
        return "minute" if self._between() >= 60 else "second"  # noqa: PLR2004

    @property
    def ticks(self) -> list[tuple[float, float]]:
        """Round times, equally far from each other: where each is, from 0 to 100, and the seconds since 1970."""
        between = self._between()
        first = math.ceil(self.start / between)
        times: list[float] = [number * between for number in range(first, math.floor(self.end / between) + 1)]
        return [(round((at - self.start) / (self.end - self.start) * 100, 2), at) for at in times or [self.start]]

    def _between(self) -> int:
        least = (self.end - self.start) / _LABELS
        return next((step for step in _STEPS if step >= least), math.ceil(least / _DAY) * _DAY)

    def seconds(self) -> dict[str, str]:
        """Give the parameters as Prometheus takes them."""
        return {"start": f"{self.start:.3f}", "end": f"{self.end:.3f}"}

    def nanoseconds(self) -> dict[str, str]:
        """Give the parameters as Loki takes them."""
        return {"start": str(int(self.start * 1e9)), "end": str(int(self.end * 1e9))}

    def microseconds(self) -> dict[str, str]:
        """Give the parameters as Jaeger takes them."""
        return {"start": str(int(self.start * 1e6)), "end": str(int(self.end * 1e6))}

    def params(self) -> dict[str, str]:
        """Give what a link needs to show the same time."""
        if self.name:
            return {"range": self.name}
        chosen = {"from": str(int(self.start * 1000)), "to": str(int(self.end * 1000))}
        return chosen | ({"back": self.back} if self.back else {})


def _moment(text: str) -> float | None:
    if _MILLISECONDS.fullmatch(text):
        return int(text) / 1000
    if not _FIELD.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:  # the 31st of February
        return None
