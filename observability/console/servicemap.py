"""The parts and who calls whom, laid out from left to right."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from observability.story.apis import attempt, together

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from observability.console.asking import Apis
    from observability.story.window import Window

_COLUMN, _ROW, _BOX, _HIGH = 292, 118, 160, 56
_ASKED, _FAILED, _P95 = (
    " or ".join(query.replace("CALLS", metric) for metric in ("http_client_request", "gateway_upstream"))
    for query in (
        "sum by (job, peer_service) (rate(CALLS_duration_seconds_count[1m]))",
        'sum by (job, peer_service) (rate(CALLS_duration_seconds_count{http_response_status_code!~"[1-4]..|"}[1m]))',
        "histogram_quantile(0.95, sum by (job, peer_service, le) (rate(CALLS_duration_seconds_bucket[1m]))) >= 0",
    )
)
# The gateway counts statuses by route, not by service.
_FAILED += (
    ' or sum by (job, peer_service) (label_replace(rate(http_server_request_duration_seconds_count{job="nginx",'
    ' http_response_status_code=~"5.."}[1m]), "peer_service", "$1-service", "http_route", "/([a-z]+?)s?/.*"))'
)
Figures = dict[tuple[str, str], float]


@dataclass(kw_only=True)
class Node:
    """A part."""

    name: str
    x: int
    y: int
    up: bool | None
    """Whether Prometheus reaches it; None where it does not know."""


@dataclass(kw_only=True)
class Edge:
    """Calls from one part to another; what is not known is None."""

    parent: str
    child: str
    count: int
    path: str
    x: float
    y: float
    rate: float | None
    errors: float | None
    p95: float | None


@dataclass(kw_only=True)
class Map:
    """What the page draws."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int
    known: bool = True
    """Whether Jaeger could be asked."""
    box: int = _BOX
    high: int = _HIGH


def build(apis: Apis, window: Window, errors: list[str]) -> Map:
    """Ask Jaeger who calls whom, and Prometheus how it goes."""

    def called() -> dict[tuple[str, str], int]:
        found = apis.jaeger.calls(window)
        return {
            (str(one["parent"]), str(one["child"])): int(one["callCount"])
            for one in found
            if one["parent"] != one["child"]
        }

    def figures(query: str) -> Figures:
        return {
            (one["metric"].get("job", ""), one["metric"].get("peer_service", "")): float(one["value"][1])
            for one in apis.prometheus.now(query)
        }

    def known(query: str) -> Figures | None:
        return attempt(errors, lambda: figures(query), lambda: None)

    found = attempt(errors, called, lambda: None)
    pairs = found or {}
    rates, failed, slow, reached = together(known, (_ASKED, _FAILED, _P95, "min by (job) (up)"))
    up = {job: value > 0 for (job, _), value in (reached or {}).items()}
    places = _laid_out(pairs)
    edges = []
    for pair, count in pairs.items():
        path, x, y = _arrow(places[pair[0]], places[pair[1]], places.values())
        rate = None if rates is None else rates.get(pair, 0)
        edges.append(
            Edge(
                parent=pair[0],
                child=pair[1],
                count=count,
                path=path,
                x=x,
                y=y,
                rate=rate,
                errors=failed.get(pair, 0) / rate if rate and failed is not None else None,
                p95=(slow or {}).get(pair),
            )
        )
    nodes = [Node(name=name, x=x, y=y, up=up.get(name)) for name, (x, y) in places.items()]
    return Map(
        known=found is not None,
        nodes=nodes,
        edges=edges,
        width=max((node.x for node in nodes), default=0) + _BOX,
        height=max((node.y for node in nodes), default=0) + _HIGH,
    )


def _laid_out(pairs: Mapping[tuple[str, str], int]) -> dict[str, tuple[int, int]]:
    """Give each part its place: a column to the right of all that call it, however long the way."""
    depth = dict.fromkeys(dict.fromkeys(name for pair in pairs for name in pair), 0)
    for _ in depth:  # as often as a way without a circle can be long
        for parent, child in pairs:
            depth[child] = min(max(depth[child], depth[parent] + 1), len(depth) - 1)
    columns: dict[int, list[str]] = defaultdict(list)
    for name in sorted(
        depth, key=lambda one: (depth[one], -sum(count for pair, count in pairs.items() if one in pair))
    ):
        columns[depth[name]].append(name)
    tallest = max((len(column) for column in columns.values()), default=0)
    places = {}
    for number, at in enumerate(sorted(columns)):
        column = columns[at]
        for row, name in enumerate(column):
            places[name] = (number * _COLUMN, round((row + (tallest - len(column)) / 2) * _ROW))
    return places


def _arrow(
    start: tuple[int, int], end: tuple[int, int], places: Collection[tuple[int, int]]
) -> tuple[str, float, float]:
    """Draw an edge, and give the place of its figures; one that passes other columns goes between their parts."""
    x1, y1, x2, y2 = start[0] + _BOX, start[1] + _HIGH / 2, end[0], end[1] + _HIGH / 2
    if x2 <= start[0]:  # backwards
        x1, x2 = start[0], end[0] + _BOX
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    passed = [place[1] + _HIGH / 2 for place in places if min(x1, x2) < place[0] < max(x1, x2) - 1]
    if not passed:
        return f"M{x1} {y1}C{x} {y1} {x} {y2} {x2} {y2}", x, y
    free = [each + side * _ROW / 2 for each in passed for side in (-1, 1)]
    y = min(
        (each for each in free if all(abs(each - other) >= _ROW / 2 for other in passed)), key=lambda one: abs(one - y)
    )
    bend = (x2 - x1) / 4
    return f"M{x1} {y1}C{x1 + bend} {y1} {x - bend} {y} {x} {y}S{x2 - bend} {y2} {x2} {y2}", x, y
