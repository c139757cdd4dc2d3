"""Logs: a LogQL box, the volume by level, the lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flask import Blueprint, request

from observability.console import chart, pages, show
from observability.story.apis import Refused, attempt
from observability.story.backends import oldest_first

if TYPE_CHECKING:
    from observability.story.apis import Loki
    from observability.story.backends import Line
    from observability.story.window import Window

DEFAULT = '{service_namespace="shop"}'
EXAMPLES = {
    "everything": DEFAULT,
    "errors": '{service_namespace="shop"} | level=~"error|critical"',
    "orders": '{service_name="order-service"} | json | event="order.created"',
    "slow requests": '{service_namespace="shop"} | json | event="request.completed" | duration_s > 0.1',
    "declined": '{service_name="payment-service"} | json | outcome="DECLINED"',
    "lines a second, by service": 'sum by (service_name) (rate({service_namespace="shop"}[1m]))',
}
LEVELS = {"critical": "bad", "error": "bad", "warning": "warn", "info": "info", "debug": "s7", "": "s9"}
_LIMIT = 200
_POSITION = re.compile(r"line (\d+), col (\d+)")
_AGGREGATION = re.compile(
    r"\s*(sum|count|avg|min|max|topk|bottomk|rate|quantile|stddev|sort|\w+_over_time|bytes_rate)\b"
)

routes = Blueprint("logs", __name__)


@routes.get("/logs")
def logs() -> str:
    """Ask Loki what the box says."""
    window, errors = pages.window("1h"), list[str]()
    query = request.args.get("q", "").strip() or DEFAULT
    ask, said, caret = pages.apis().loki, "", ""
    nothing: dict[str, Any] = {"result": []}
    step = window.step if _AGGREGATION.match(query) else 0
    try:
        found = attempt(errors, lambda: ask.query(query, window, limit=_LIMIT, step=step), lambda: nothing, Refused)
    except Refused as error:
        found, said, caret = nothing, str(error), _caret(query, str(error))
    is_metric = found.get("resultType") == "matrix"
    drawn: chart.Chart | None = None
    lines: list[Line] = []
    if is_metric:
        drawn = attempt(
            errors, lambda: chart.draw([_series(one) for one in found["result"]], "short", window), lambda: None
        )
    else:
        lines = attempt(errors, lambda: oldest_first(found["result"])[::-1], list)
        if lines:
            drawn = attempt(errors, lambda: _volume(ask, query, window), lambda: None)
    return pages.page(
        "logs.html",
        errors,
        window=window,
        query=query,
        curl=show.curl(ask.public + ask.path, ask.fields(query, window, limit=_LIMIT, step=step)),
        examples=EXAMPLES,
        said=said,
        caret=caret,
        lines=lines,
        limit=_LIMIT,
        chart=drawn,
        is_metric=is_metric,
    )


def _volume(ask: Loki, query: str, window: Window) -> chart.Chart:
    """Draw how many lines of each level there are, over time."""
    counted = f"sum by (level) (count_over_time({query} [{window.step}s]))"
    levels = ask.query(counted, window, step=window.step)["result"]
    return chart.draw([_series(one) for one in levels], "suffix:lines", window, bars=True)


def _series(one: dict[str, Any]) -> chart.Series:
    name = " ".join(one["metric"].values()) or "no level"
    return chart.Series(name, chart.points_of(one["values"]), colour=LEVELS.get(one["metric"].get("level", ""), ""))


def _caret(query: str, said: str) -> str:
    """Show the place that an error names: the query's line, and below it a mark."""
    position = _POSITION.search(said)
    if not position:
        return ""
    number, column = int(position[1]), int(position[2])
    text = query.split("\n")
    if not 0 < number <= len(text):
        return ""
    return f"{text[number - 1]}\n{' ' * min(column - 1, len(text[number - 1]))}^"
