"""Grafana's dashboards, drawn here: from the files that observability/grafana's definitions are written to."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, redirect, request, url_for

from observability.console import chart, pages, servicemap, show
from observability.console.traces import summary
from observability.story.apis import attempt, together
from observability.story.backends import line_of
from observability.story.spans import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response

    from observability.console.asking import Apis
    from observability.story.window import Window

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
ORDER = ("overview", "order-path", "service", "database", "telemetry", "load")
"""The dashboards, as Grafana's menu has them."""
_RATE_SECONDS = 60
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)", re.DOTALL)
_MOST_LINES = 60
_TONES = {"green": "good", "dark-orange": "warn", "dark-red": "bad", "red": "bad", "light-blue": "info"}

routes = Blueprint("dashboards", __name__)


@dataclass
class Panel:
    """A panel, with what is to be drawn in it."""

    title: str
    question: str
    kind: str
    """The template's part that draws it; empty where the console cannot."""
    width: int
    none: str = "Nothing in the time shown"
    queries: list[str] = field(default_factory=list)
    of_prometheus: list[str] = field(default_factory=list)
    """Those of them that Prometheus answers."""
    errors: list[str] = field(default_factory=list)
    data: Any = None


@cache
def boards() -> dict[str, dict[str, Any]]:
    """Read the committed dashboards, by uid."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    return {uid: found[uid] for uid in ORDER if uid in found}


@routes.get("/dashboards/")
def first() -> str:
    """Show the first one."""
    return dashboard(ORDER[0])


@routes.get("/dashboards/<uid>")
def dashboard(uid: str) -> str:
    """Show a dashboard."""
    board = boards().get(uid)
    if board is None:
        abort(404, f"There is no dashboard {uid}.")
    window, errors = pages.window("30m"), list[str]()
    ask = pages.apis()
    variables = _variables(board, ask, window, errors)
    values = {one["name"]: one["value"] for one in variables}
    draw = partial(_panel, ask, window, values)
    panels = [one for one in board["panels"] if one["type"] != "row"]
    drawn = iter(together(draw, panels))
    sections: list[tuple[str, list[Panel]]] = []
    for one in board["panels"]:
        if one["type"] == "row":
            sections.append((one["title"], []))
        else:
            sections[-1][1].append(next(drawn))
    return pages.page(
        "dashboards.html",
        errors,
        window=window,
        uid=uid,
        title=board["title"],
        question=board.get("description", ""),
        boards={name: each["title"] for name, each in boards().items()},
        variables=variables,
        sections=sections,
    )


@routes.get("/d/<uid>")
@routes.get("/d/<uid>/<_title>")
def as_in_grafana(uid: str, _title: str = "") -> Response:
    """Lead on from an address of Grafana, as alerts and runbooks name it."""
    if uid.startswith("runbook-"):
        name = uid.removeprefix("runbook-")
        return redirect(url_for("overview.runbook", name="README" if name == "none" else name))
    return redirect(f"{url_for('dashboards.dashboard', uid=uid)}?{request.query_string.decode(errors='replace')}")


def _variables(board: Mapping[str, Any], ask: Apis, window: Window, errors: list[str]) -> list[dict[str, Any]]:
    """Give the dashboard's variables, each with its choices, and the value to put into queries."""
    found: list[dict[str, Any]] = []
    for one in board.get("templating", {}).get("list", []):
        name = one["name"]
        chosen = request.args.get(f"var-{name}")
        choices: list[str] = [each["value"] for each in one.get("options", []) if each["value"] != "$__all"]
        if one["type"] == "query":
            values = {each["name"]: each["value"] for each in found}
            match = _LABEL_VALUES.fullmatch(one["query"]["query"])
            if match:
                selector = _filled(match[1], values, window)
                choices = attempt(errors, partial(ask.prometheus.label_values, match[2], selector), list)
        default = one.get("current", {}).get("value", "")
        default = default[0] if isinstance(default, list) else default
        picked = chosen if chosen is not None else default
        if one.get("includeAll") and picked not in choices:
            picked = "$__all"
        value = one.get("allValue", ".*") if picked == "$__all" else picked
        found.append(
            {
                "name": name,
                "label": one.get("label") or name,
                "type": one["type"],
                "choices": choices,
                "all": one.get("includeAll", False),
                "picked": picked,
                "value": value,
            }
        )
    return found


def _filled(text: str, values: Mapping[str, str], window: Window) -> str:
    """Put the values of variables into a query, Grafana's own ones too."""
    own = {
        "__rate_interval": f"{max(_RATE_SECONDS, 4 * window.step)}s",
        "__interval": f"{window.step}s",
        "__auto": f"{window.step}s",
        "__range": f"{max(int(window.end - window.start), 1)}s",
    }
    return _VARIABLE.sub(lambda match: own.get(match[1], values.get(match[1], match[0])), text)


def _panel(ask: Apis, window: Window, values: Mapping[str, str], one: dict[str, Any]) -> Panel:
    """Ask for a panel's data, and draw it."""
    defaults = one.get("fieldConfig", {}).get("defaults", {})
    panel = Panel(
        title=one.get("title", ""),
        question=one.get("description", ""),
        kind="",
        width=one["gridPos"]["w"],
        none=defaults.get("noValue") or "Nothing in the time shown",
    )
    how = _KINDS.get(one["type"])
    if how is None:
        return panel
    targets = [{**target, "expr": _filled(target.get("expr", ""), values, window)} for target in one.get("targets", [])]
    panel.queries = [target["expr"] for target in targets if target["expr"]]
    panel.of_prometheus = [
        target["expr"] for target in targets if (target.get("datasource") or {}).get("type") not in {"loki", "jaeger"}
    ]
    context = _Context(ask, window, values, one, defaults, targets, panel)
    attempt(panel.errors, lambda: how(context), lambda: None)
    return panel


@dataclass
class _Context:
    """What is at hand to draw a panel."""

    ask: Apis
    window: Window
    values: Mapping[str, str]
    one: dict[str, Any]
    defaults: dict[str, Any]
    targets: list[dict[str, Any]]
    panel: Panel

    @property
    def unit(self) -> str:
        unit: str = self.defaults.get("unit", "short")
        return unit

    @property
    def limits(self) -> list[tuple[float, str]]:
        if self.defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode") != "dashed":
            return []
        steps = [step["value"] for step in self.defaults["thresholds"]["steps"] if step["value"] is not None]
        return list(zip(steps, ("warn", "bad"), strict=False))

    def now(self, target: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.ask.prometheus.now(target["expr"])

    def series(self) -> list[chart.Series]:
        found = []
        for target in self.targets:
            if (target.get("datasource") or {}).get("type") == "loki":
                result = self.ask.loki.query(target["expr"], self.window, step=self.window.step)["result"]
            else:
                result = self.ask.prometheus.over(target["expr"], self.window, self.window.step)
            found += [
                chart.Series(
                    _legend(target, each["metric"], self.panel.title), chart.points_of(each["values"]), each["metric"]
                )
                for each in result
            ]
        return [one for one in found if one.points]


def _graph(at: _Context) -> None:
    custom = at.defaults.get("custom", {})
    series = at.series()
    at.panel.kind = "graph"
    if not series:
        return
    for one in series:
        _look(one, at.one["fieldConfig"]["overrides"])
    at.panel.data = chart.draw(
        series,
        at.unit,
        at.window,
        least=custom.get("axisSoftMax", 0),
        limits=at.limits,
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        bars=custom.get("drawStyle") == "bars",
    )
    _exemplars(at)


def _look(series: chart.Series, overrides: list[dict[str, Any]]) -> None:
    """Give a series what the definition says of its name: colour, unit, a place outside the stack."""
    for one in overrides:
        wanted = one["matcher"]["options"]
        pattern = wanted[1:-1] if wanted.startswith("/") else re.escape(wanted) + "$"
        if not re.match(pattern, series.name):
            continue
        looks = {each["id"]: each["value"] for each in one["properties"]}
        series.unit = looks.get("unit", series.unit)
        series.alone = series.alone or looks.get("custom.stacking", {}).get("mode") == "none"
        if "color" in looks:
            series.colour = _TONES.get(looks["color"].get("fixedColor", ""), series.colour)


def _exemplars(at: _Context) -> None:
    for target in at.targets:
        if target.get("exemplar"):
            chart.add_dots(at.panel.data, at.ask.prometheus.exemplars(target["expr"], at.window))


def _heat(at: _Context) -> None:
    """Draw a cell for each bucket and time: how many came in there and were not in the bucket below."""
    at.panel.kind = "heat"
    buckets = sorted((float(each.labels["le"]), each.points) for each in at.series() if "le" in each.labels)
    buckets = [(bound, points) for bound, points in buckets if bound != float("inf")]
    if not buckets or not any(value for _, points in buckets for _, value in points):
        return
    below: dict[float, float] = {}
    counts: list[list[tuple[float, float]]] = []
    for _, points in buckets:
        counts.append([(when, max(value - below.get(when, 0), 0)) for when, value in points])
        below = dict(points)
    most = max((value for row in counts for _, value in row), default=0) or 1
    high = chart.HEIGHT / len(buckets)
    length = at.window.end - at.window.start
    width = at.window.step / length * chart.WIDTH
    cells = [
        {
            "x": round((when - at.window.start) / length * chart.WIDTH - width, 1),
            "y": round(chart.HEIGHT - (row + 1) * high, 2),
            "shade": min(int(value / most * 5) + 1, 5),
        }
        for row, points in enumerate(counts)
        for when, value in points
        if value > 0
    ]
    drawn = chart.draw([], "s", at.window)
    at.panel.data = {
        "chart": drawn,
        "cells": cells,
        "width": round(width * 1.02, 2),
        "high": round(high * 0.94, 2),
        "bounds": [show.seconds(bound) for bound, _ in reversed(buckets)],
    }
    _exemplars_in_buckets(at, drawn, [bound for bound, _ in buckets])


def _exemplars_in_buckets(at: _Context, drawn: chart.Chart, bounds: list[float]) -> None:
    found = [
        each
        for target in at.targets
        if target.get("exemplar")
        for each in at.ask.prometheus.exemplars(target["expr"], at.window)
    ]
    chart.add_dots(drawn, found)
    # The axis has buckets, not seconds: a point goes into the middle of its own.
    for dot in drawn.dots:
        row = next((number for number, bound in enumerate(bounds) if dot.value <= bound), len(bounds) - 1)
        dot.y = round(chart.HEIGHT - (row + 0.5) * chart.HEIGHT / len(bounds), 2)


def _numbers(at: _Context) -> None:
    at.panel.kind = "numbers"
    words = _words(at.defaults)
    at.panel.data = []
    for target in at.targets:
        for each in at.now(target):
            value = float(each["value"][1])
            said = words.get(f"{value:g}", {})
            at.panel.data.append(
                {
                    "name": _legend(target, each["metric"], ""),
                    "value": value,
                    "text": said.get("text") or show.quantity(value, at.unit),
                    "state": _state(value, at.defaults) if not said else _tone(said.get("color", "")),
                }
            )


def _bars(at: _Context) -> None:
    _numbers(at)
    at.panel.kind = "bars"
    sizes = [one["value"] if math.isfinite(one["value"]) else 0 for one in at.panel.data]
    most = max(sizes, default=0) or 1
    for one, size in zip(at.panel.data, sizes, strict=True):
        one["share"] = round(size / most * 100, 1)


def _table(at: _Context) -> None:
    """Show a row for each series, or for each value of the label that several queries are joined by."""
    if any((target.get("datasource") or {}).get("type") == "jaeger" for target in at.targets):
        _found_traces(at)
        return
    at.panel.kind = "table"
    steps = {each["id"]: each["options"] for each in at.one.get("transformations", [])}
    organized = steps.get("organize", {})
    places = organized.get("indexByName", {})
    titles = dict(sorted(organized.get("renameByName", {}).items(), key=lambda one: places.get(one[0], len(places))))
    looks = {
        each["matcher"]["options"]: {one["id"]: one["value"] for one in each["properties"]}
        for each in at.one["fieldConfig"]["overrides"]
    }
    rows: list[list[dict[str, str]]] = []
    if "joinByField" in steps:
        label = steps["joinByField"]["byField"]
        columns = [
            {each["metric"].get(label, ""): float(each["value"][1]) for each in at.now(target)} for target in at.targets
        ]
        heads = list(titles.values())
        for name in sorted({name for column in columns for name in column}):
            row = [{"text": name, "state": "", "link": _link_of(label, name)}]
            for head, column in zip(heads[1:], columns, strict=False):
                look = looks.get(head, {})
                value = column.get(name)
                text = look.get("noValue", "–") if value is None else show.quantity(value, look.get("unit", "short"))  # noqa: RUF001
                row.append({"text": text, "state": "" if value is None else _state(value, look), "link": ""})
            rows.append(row)
    else:
        heads = list(titles.values())
        for each in at.now(at.targets[0]):
            cells = {**each["metric"], "Value": show.quantity(float(each["value"][1]), "short")}
            rows.append(
                [
                    {"text": str(cells.get(name, "")), "state": "", "link": _link_of(name, str(cells.get(name, "")))}
                    for name in titles
                ]
            )
    at.panel.data = {"heads": heads, "rows": rows} if rows else None


def _link_of(label: str, value: str) -> str:
    if label == "job" and (value.endswith("-service") or value == "nginx"):
        return f"/dashboards/service?var-service={value}"
    if label == "alertname":
        return "/runbooks/" if value == "none" else f"/runbooks/{value}"
    return ""


def _found_traces(at: _Context) -> None:
    at.panel.kind = "traces"
    target = at.targets[0]
    found = at.ask.jaeger.search(
        {
            "service": _filled(str(target.get("service", "")), at.values, at.window),
            "operation": _filled(str(target.get("operation", "")), at.values, at.window),
            "minDuration": _filled(str(target.get("minDuration", "")), at.values, at.window),
            "limit": str(target.get("limit", 20)),
            **at.window.microseconds(),
        }
    )
    traces = sorted((summary(parse(one)) for one in found), key=lambda one: -one["duration"])
    at.panel.data = traces[:10]


def _lines(at: _Context) -> None:
    at.panel.kind = "lines"
    found = []
    for target in at.targets:
        for stream in at.ask.loki.query(target["expr"], at.window, limit=_MOST_LINES)["result"]:
            labels = stream["stream"]
            found += [
                {
                    "time": int(when) / 1e9,
                    "level": labels.get("level", ""),
                    "service": labels.get("service_name", ""),
                    "text": text,
                    "trace_id": line_of(labels, when, text).trace_id,
                }
                for when, text, *_ in stream["values"]
            ]
    at.panel.data = sorted(found, key=lambda one: -one["time"])[:_MOST_LINES]


def _history(at: _Context) -> None:
    """Draw a bar for each stretch of time in which a series has a value above zero."""
    at.panel.kind = "history"
    length = at.window.end - at.window.start
    rows = []
    for series in at.series():
        if series.labels.get("alertname") == "none":
            continue
        bars = [
            (round((when - at.window.start) / length * chart.WIDTH, 1), round(at.window.step / length * chart.WIDTH, 1))
            for when, value in series.points
            if value > 0
        ]
        if bars:
            rows.append(
                {"name": series.name, "link": _link_of("alertname", series.labels.get("alertname", "")), "bars": bars}
            )
    at.panel.data = rows


def _map(at: _Context) -> None:
    at.panel.kind = "map"
    at.panel.data = servicemap.build(at.ask, at.window, at.panel.errors)


def _text(at: _Context) -> None:
    at.panel.kind = "text"
    at.panel.data = show.markdown(show.leading_here(at.one["options"]["content"]))


_KINDS: dict[str, Callable[[_Context], None]] = {
    "timeseries": _graph,
    "heatmap": _heat,
    "stat": _numbers,
    "bargauge": _bars,
    "table": _table,
    "logs": _lines,
    "state-timeline": _history,
    "nodeGraph": _map,
    "text": _text,
}
"""Grafana's kinds of panels that the console can draw."""


def _legend(target: Mapping[str, Any], labels: Mapping[str, str], otherwise: str) -> str:
    form = str(target.get("legendFormat") or "")
    if form and form != "__auto":
        return _LABEL.sub(lambda match: labels.get(match[1], ""), form).strip() or otherwise
    return " ".join(value for name, value in labels.items() if name != "__name__") or otherwise


def _words(defaults: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        value: said
        for mapping in defaults.get("mappings", [])
        if mapping["type"] == "value"
        for value, said in mapping["options"].items()
    }


def _state(value: float, look: Mapping[str, Any]) -> str:
    """Say `good`, `warn` or `bad`, by the steps of a field."""
    steps = look.get("thresholds", {}).get("steps", [])
    if len(steps) < 2:  # noqa: PLR2004
        return ""
    return _tone([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])


def _tone(colour: str) -> str:
    return {"dark-red": "bad", "dark-orange": "warn", "blue": "good"}.get(colour, "")
