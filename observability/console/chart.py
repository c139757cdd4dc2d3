"""Series over time as paths of an SVG that is stretched to its place: 1000 units wide, 100 high."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.console.show import quantity
from observability.story.text import SHORT, clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from observability.story.window import Window

WIDTH, HEIGHT = 1000, 100
COLOURS = 10
"""How many the style sheet has for series: `s0` to `s9`."""
SERVICES = frozenset(("nginx", "auth-service", "user-service", "product-service", "order-service", "payment-service"))
"""Those that have a colour of their own there, such as `v-nginx`."""
_PALETTE = [f"s{number}" for number in range(COLOURS)]
_TICKS = 4
_NICE = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_GAP = 3.5  # steps without a point: the line is broken

Points = list[tuple[float, float]]


@dataclass
class Series:
    """A line: its name, and its points as seconds since 1970 and value."""

    name: str
    points: Points
    labels: Mapping[str, str] = field(default_factory=dict)
    colour: str = ""
    unit: str = ""
    """Its own, if it is another than the chart's."""
    alone: bool = False
    """Not on top of the others."""
    path: str = ""
    area: str = ""

    @property
    def last(self) -> float | None:
        """Its newest value."""
        return self.points[-1][1] if self.points else None

    @property
    def most(self) -> float | None:
        """Its highest value."""
        return max((value for _, value in self.points), default=None)


@dataclass(kw_only=True)
class Dot:
    """An exemplar."""

    x: float
    y: float
    value: float
    trace_id: str
    label: str


@dataclass(kw_only=True)
class Chart:
    """All that the template draws."""

    series: Sequence[Series]
    unit: str
    top: float
    window: Window
    dots: Sequence[Dot] = ()
    limits: Sequence[tuple[float, str]] = ()
    """Dashed lines: height and `warn` or `bad`."""
    stacked: bool = False
    bars: Sequence[tuple[float, float, float, float, str]] = ()
    """x, y, width, height, colour."""

    @property
    def ticks(self) -> list[str]:
        """What stands at the left, from above."""
        return [quantity(self.top * tick / _TICKS, self.unit) for tick in range(_TICKS, -1, -1)]

    @property
    def data(self) -> str:
        """What the script shows at the pointer."""
        return json.dumps(
            [
                {
                    "n": clean(one.name, SHORT),
                    "p": [[round(when), quantity(value, one.unit or self.unit)] for when, value in one.points],
                }
                for one in self.series
            ]
        )


def points_of(values: Sequence[Sequence[object]]) -> Points:
    """Read what Prometheus and Loki give; what is no number is no point."""
    points = [(float(str(when)), float(str(value))) for when, value in values]
    return [point for point in points if math.isfinite(point[1])]


def colour_of(name: str) -> str:
    """Give a name one of the colours, the same in each chart; a service its own."""
    service = name.partition(" ")[0]
    if service in SERVICES:
        return f"v-{service}"
    return f"s{zlib.crc32(name.encode()) % COLOURS}"


def draw(  # noqa: PLR0913  # how a chart looks, by name
    series: Sequence[Series],
    unit: str,
    window: Window,
    *,
    least: float = 0,
    limits: Sequence[tuple[float, str]] = (),
    stacked: bool = False,
    bars: bool = False,
) -> Chart:
    """Draw lines, or areas or bars on top of each other.

    Args:
        series: What to draw.
        unit: Grafana's name of the unit.
        window: The time shown.
        least: How high the axis is at least.
        limits: Values with a dashed line, and `warn` or `bad`.
        stacked: On top of each other.
        bars: A bar for each point, also on top of each other.
    """
    series = sorted(series, key=lambda one: -(one.last or 0))
    _paint(series)
    tops = _piled(series) if stacked or bars else [one.points for one in series]
    top = nice(max([least, *(value for points in tops for _, value in points)]))
    length = max(window.end - window.start, 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = (point[0] - window.start) / length * WIDTH
        return round(x, 1), round(HEIGHT - min(max(point[1] / top, 0), 1) * HEIGHT, 2)

    drawn = []
    for one, points in zip(series, tops, strict=True):
        if bars:
            width = max(WIDTH * window.step / length * 0.8, 2)
            for (_, value), lifted in zip(one.points, points, strict=True):
                x, y = place(lifted)
                left, right = max(x - width, 0), min(x, WIDTH)  # of the first and the last one a part is outside
                high = round(value / top * HEIGHT, 2)
                drawn.append((round(left, 1), y, round(right - left, 1), high, one.colour))
        elif not stacked or one.alone or one.most:  # with nothing of it, its line would lie on top of another
            one.path, one.area = _lines([place(point) for point in points], WIDTH * window.step / length * _GAP)
    return Chart(
        series=series,
        unit=unit,
        top=top,
        window=window,
        stacked=stacked,
        bars=[bar for bar in drawn if bar[2] > 0 and bar[3] > 0],
        limits=[(round(HEIGHT - value / top * HEIGHT, 2), kind) for value, kind in limits if 0 < value <= top],
    )


def _paint(series: Sequence[Series]) -> None:
    """Give each series a colour that no other one has, as long as there are enough."""
    taken: set[str] = set()
    for one in series:
        one.colour = one.colour or colour_of(one.name)
        if one.colour in taken:
            one.colour = next((each for each in _PALETTE if each not in taken), one.colour)
        taken.add(one.colour)


def _piled(series: Sequence[Series]) -> list[Points]:
    """Put each series on top of those before it."""
    floors: dict[float, float] = {}
    piled = []
    for one in series:
        if one.alone:
            piled.append(one.points)
            continue
        for when, value in one.points:
            floors[when] = floors.get(when, 0) + value
        piled.append([(when, floors[when]) for when, _ in one.points])
    return piled


def add_dots(chart: Chart, exemplars: Sequence[Mapping[str, object]], most: int = 40) -> None:
    """Put exemplars as Prometheus gives them on a chart, the newest ones."""
    found = [one for each in exemplars for one in each["exemplars"]]  # type: ignore[attr-defined]
    window, dots = chart.window, []
    for one in sorted(found, key=lambda each: -each["timestamp"])[:most]:
        value = float(one["value"])
        trace_id = str(one["labels"].get("trace_id", ""))
        if not (math.isfinite(value) and trace_id.isalnum()):
            continue
        x = (one["timestamp"] - window.start) / max(window.end - window.start, 1) * WIDTH
        y = HEIGHT - min(value / chart.top, 1) * HEIGHT
        dots.append(
            Dot(x=round(x, 1), y=round(y, 2), value=value, trace_id=trace_id, label=quantity(value, chart.unit))
        )
    chart.dots = dots


def nice(value: float) -> float:
    """Give the next round number: where the axis ends."""
    if not math.isfinite(value) or value <= 0:
        return 1
    scale = 10.0 ** math.floor(math.log10(value))
    return next(scale * each for each in _NICE if scale * each >= value * 0.9999)


def _lines(points: Sequence[tuple[float, float]], gap: float) -> tuple[str, str]:
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= gap:
            runs[-1].append(point)
        else:
            runs.append([point])
    path, area = [], []
    for run in runs:
        through = "L".join(f"{x} {y}" for x, y in run)
        path.append(f"M{through}" + ("h0.1" if len(run) == 1 else ""))
        area.append(f"M{run[0][0]} {HEIGHT}L{through}L{run[-1][0]} {HEIGHT}Z")
    return "".join(path), "".join(area)
