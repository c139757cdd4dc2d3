"""The kinds of panels that the dashboards are made of.

Every panel answers a question, which is its description, and has a unit. Thresholds go from blue over orange to red,
and what a colour says is said in words or by a line too: not everybody sees the difference between red and green. Which
colour a status, an outcome, a level or a service has: colours.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    logs,
    nodegraph,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as of
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from observability.grafana.colours import override, overrides, painted
from observability.grafana.queries import RATE, TRACES, Calls, Search, logql, promql, promql_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOOD, WARN, BAD = "blue", "dark-orange", "dark-red"

Steps = tuple[float, float]
"""From where on it is worth a look, and from where on it is bad."""

HALF = 12  # of 24 columns
NOTHING = "Nothing in the time shown"
"""What stands in an empty panel, unless there is something better to say: `No data` could be good or bad."""

Panel = Builder[model.Panel]
Query = Builder[Dataquery]


def graph(
    title: str,
    question: str,
    *queries: Query,
    unit: str,
    steps: Steps | None = None,
    width: int = 12,
    none: str = NOTHING,
) -> timeseries.Panel:
    """Draw lines over time.

    Args:
        title: What is to be seen.
        question: What it answers.
        queries: What is drawn.
        unit: Grafana's name of the unit.
        steps: Dashed lines, from where it is worth a look, and from where it is bad.
        width: Of 24 columns.
        none: What to say where there is nothing to draw.
    """
    panel = (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .axis_soft_max(_soft_maximum(unit, steps))
        .line_width(2)
        .fill_opacity(8)
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(_legend(width))
        .tooltip(common.VizTooltipOptions().mode(of.TooltipDisplayMode.MULTI).sort(of.SortOrder.DESCENDING))
        .no_value(none)
    )
    if steps:
        panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(of.GraphThresholdsStyleMode.DASHED)
        )
    finished = _finished(panel, title, question, queries, (width, 8))
    legends = dict.fromkeys(getattr(query.build(), "legend_format", None) or "" for query in queries)
    for legend in legends:
        for one in overrides(legend):
            finished.with_override(one.matcher, one.properties)
    return finished


def _soft_maximum(unit: str, steps: Steps | None) -> float:
    """Give how high the axis is at least: an axis for zeros alone goes to 10,000 %, and its thresholds lie on zero."""
    if steps:
        return steps[0] * 1.1 if unit == "s" else steps[1] * 1.1
    return {"s": 0.1, "bytes": 2**20}.get(unit, 1.0)


def _legend(width: int) -> common.VizLegendOptions:
    """List the series, the highest first: to the right, where there is room for ten of them; else below, in a line."""
    legend = common.VizLegendOptions().show_legend(show_legend=True).sort_by("Last *").sort_desc(sort_desc=True)
    if width < HALF:
        legend.display_mode(of.LegendDisplayMode.LIST).placement(of.LegendPlacement.BOTTOM)
        return legend.calcs(["lastNotNull"])
    legend.display_mode(of.LegendDisplayMode.TABLE).placement(of.LegendPlacement.RIGHT)
    return legend.calcs(["lastNotNull", "max"] if width > HALF else ["lastNotNull"])


def stack(
    title: str, question: str, *queries: Query, unit: str, width: int = 12, none: str = NOTHING
) -> timeseries.Panel:
    """Draw areas on top of each other: parts of a whole."""
    return (
        graph(title, question, *queries, unit=unit, width=width, none=none)
        .fill_opacity(40)
        .stacking(common.StackingConfig().mode(of.StackingMode.NORMAL))
    )


def over_the_stack(panel: timeseries.Panel, name: str, color: str) -> timeseries.Panel:
    """Draw one series of a stack as a line over it: what the parts should add up to."""
    line = {"custom.stacking": {"mode": "none"}, "custom.fillOpacity": 0, "custom.lineStyle": _DASHED}
    one = override(name, {**line, "color": {"mode": "fixed", "fixedColor": color}})
    return panel.with_override(one.matcher, one.properties)


def dashed(panel: timeseries.Panel, pattern: str) -> timeseries.Panel:
    """Draw the series with such names with dashes: the other view of the same."""
    one = override(pattern, {"custom.lineStyle": _DASHED})
    return panel.with_override(one.matcher, one.properties)


def in_unit(panel: timeseries.Panel, pattern: str, unit: str) -> timeseries.Panel:
    """Give the series with such names a unit of their own."""
    one = override(pattern, {"unit": unit})
    return panel.with_override(one.matcher, one.properties)


_DASHED = {"fill": "dash", "dash": [10, 6]}


def counted(title: str, question: str, *queries: Query, unit: str, each: str, width: int = 24) -> timeseries.Panel:
    """Draw bars, one for each stretch of time that is at least `each` long."""
    return (
        stack(title, question, *queries, unit=unit, width=width)
        .draw_style(of.GraphDrawStyle.BARS)
        .fill_opacity(70)
        .line_width(0)
        .interval(each)
    )


def numbers(
    title: str,
    question: str,
    *queries: Query,
    unit: str,
    steps: Steps | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    width: int = 6,
    height: int = 5,
) -> stat.Panel:
    """Show a number a series; `words` are what to write instead of a value, and its colour."""
    panel = (
        stat.Panel()
        .unit(unit)
        .color_mode(of.BigValueColorMode.BACKGROUND_SOLID)
        .text_mode(of.BigValueTextMode.VALUE_AND_NAME)
        .graph_mode(of.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(steps))
    )
    panel.mappings([*([_words(words)] if words else []), _missing("not known", "transparent")])
    if words:
        # Many small ones: the name is what is read.
        panel.text(common.VizTextDisplayOptions().title_size(13).value_size(16))
    return _finished(panel, title, question, queries, (width, height))


def bars(
    title: str, question: str, *queries: Query, unit: str, colors: Mapping[str, str], width: int = 12, height: int = 5
) -> bargauge.Panel:
    """Show a bar a series, with its value, a whole number, as text beside it; `colors` has one for each of them."""
    panel = (
        bargauge.Panel()
        .unit(unit)
        .min(0)
        .decimals(0)
        .orientation(of.VizOrientation.HORIZONTAL)
        .display_mode(of.BarGaugeDisplayMode.BASIC)
        .value_mode(of.BarGaugeValueMode.COLOR)
        .mappings([_missing("nothing counted", "text")])
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for name, color in colors.items():
        one = painted(f"/^{name}$/", color)
        panel.with_override(one.matcher, one.properties)
    return _finished(panel, title, question, queries, (width, height))


def history(
    title: str, question: str, expr: str, legend: str, *, words: Mapping[str, tuple[str, str]], width: int = 24
) -> Panel:
    """Show when an alert fired: a line for each; `words` are what its values mean, and their colours."""
    panel = (
        statetimeline.Panel()
        .unit("none")
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(_steps((None, GOOD)))
        .mappings([_words(words)])
        .merge_values(merge_values=True)
        .show_value(of.VisibilityMode.AUTO)
        .tooltip(common.VizTooltipOptions().mode(of.TooltipDisplayMode.SINGLE).sort(of.SortOrder.NONE))
        .row_height(0.8)
        .fill_opacity(80)
        .legend(common.VizLegendOptions().show_legend(show_legend=False))
        .no_value(NOTHING)
    )
    name = "__field.labels.alertname"
    panel.data_links([build.DashboardLink(f"Runbook of ${{{name}}}").url(RUNBOOK.format(name))])
    return _finished(panel, title, question, [promql(expr, legend)], (width, 6))


def heat(title: str, question: str, bucket: str, *, unit: str, width: int = 12) -> heatmap.Panel:
    """Draw a histogram's buckets over time, with its exemplars: each is a trace to open.

    Args:
        title: What is to be seen.
        question: What it answers.
        bucket: The selector of its `_bucket` series.
        unit: Grafana's name of the unit.
        width: Of 24 columns.
    """
    query = promql(f"sum by (le) (rate({bucket}[{RATE}]))", "{{le}}", exemplars=True)
    panel = (
        heatmap.Panel()
        .calculate(calculate=False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(32))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit("reqps"))
        .exemplars_color("dark-blue")
        .show_legend()
    )
    return _finished(panel, title, question, [query.format(PromQueryFormat.HEATMAP)], (width, 9))


class Column(NamedTuple):
    """A column of a table that shows what is now.

    Attributes:
        title: What stands above it.
        expr: Its PromQL, of series that have the label that the rows are named by.
        unit: Grafana's name of the unit.
        steps: From where on a cell is orange, and red.
        low_is_bad: Or below which value it is red, and orange.
        none: What stands in the cell of a row without such a series.
    """

    title: str
    expr: str
    unit: str
    steps: Steps | None = None
    low_is_bad: Steps | None = None
    none: str = "–"  # noqa: RUF001  # a dash


def table_of(
    title: str, question: str, label: str, heading: str, *columns: Column, link: Link | None, width: int
) -> Panel:
    """Show a row for each value of a label, and what several queries say of it; `link` is where each row leads."""
    letters = "ABCDEFGH"[: len(columns)]
    titles = {label: heading, **{f"Value #{letter}": one.title for letter, one in zip(letters, columns, strict=True)}}
    hidden = dict.fromkeys(["Time", *(f"Time {number}" for number in range(1, len(columns) + 1))], True)
    panel = (
        table.Panel()
        .with_transformation(
            model.DataTransformerConfig(id_val="joinByField", options={"byField": label, "mode": "outer"})
        )
        .with_transformation(_organized(titles, hidden))
        .cell_height(of.TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name(heading).desc(desc=False)])
    )
    for one in columns:
        looks: dict[str, object] = {"unit": one.unit, "noValue": one.none}
        if one.steps or one.low_is_bad:
            levels = _levels(one.steps, one.low_is_bad).build().to_json()
            looks |= {
                "custom.cellOptions": {"type": "color-background", "mode": "basic"},
                "color": {"mode": "thresholds"},
                "thresholds": levels,
                "mappings": [_missing(one.none, "transparent")],
            }
        changed = override(one.title, looks)
        panel.with_override(changed.matcher, changed.properties)
    if link:
        panel.data_links([build.DashboardLink(link.title).url(link.url)])
    queries = [promql_now(one.expr).format(PromQueryFormat.TABLE) for one in columns]
    return _finished(panel, title, question, queries, (width, 9))


class Link(NamedTuple):
    """Where a click leads."""

    title: str
    url: str


RUNBOOK = "/d/runbook-${{{}}}"


def rows(title: str, question: str, expr: str, *, columns: Mapping[str, str], link: Link, width: int = 12) -> Panel:
    """Show a table of the series that there are now.

    Args:
        title: What is to be seen.
        question: What it answers.
        expr: What is shown.
        columns: The labels to show, and `Value`, in this order, with their titles.
        link: Where each row leads.
        width: Of 24 columns.
    """
    panel = (
        table.Panel()
        .with_transformation(_organized(columns, {"Time": True}))
        .unit("short")
        .cell_height(of.TableCellHeight.SM)
        .data_links([build.DashboardLink(link.title).url(link.url)])
    )
    return _finished(panel, title, question, [promql_now(expr).format(PromQueryFormat.TABLE)], (width, 9))


def _organized(titles: Mapping[str, str], hidden: Mapping[str, bool]) -> model.DataTransformerConfig:
    options = {
        "excludeByName": dict(hidden),
        "indexByName": {name: position for position, name in enumerate(titles)},
        "renameByName": dict(titles),
    }
    return model.DataTransformerConfig(id_val="organize", options=options)


def found_traces(title: str, question: str, search: Search, *, width: int = 12) -> Panel:
    """Show the traces that a search finds, the slowest first; each opens. Half a narrow screen shows the duration."""
    panel = table.Panel().no_value("None took so long in the time shown")
    panel.sort_by([common.TableSortByFieldState().display_name("Duration").desc(desc=True)])
    for name, pixels in {"Trace ID": 110, "Start time": 175, "Duration": 90}.items():
        one = override(name, {"custom.width": pixels})
        panel.with_override(one.matcher, one.properties)
    return _finished(panel, title, question, [search], (width, 9))


def calls(title: str, question: str, *, width: int = 12) -> Panel:
    """Draw who calls whom, as Jaeger knows it from the traces; each service leads to its dashboard."""
    panel = nodegraph.Panel()
    link = {
        "title": "Open ${__data.fields.title}",
        "url": "/d/service?var-service=${__data.fields.title}&${__url_time_range}",
    }
    one = override("title", {"links": [link]})
    panel.with_override(one.matcher, one.properties)
    return _finished(panel, title, question, [Calls()], (width, 11))


def lines(title: str, question: str, *exprs: str, none: str, width: int = 12) -> Panel:
    """Show log lines, the newest first; each leads to its trace. `none` is said where there are none."""
    panel = (
        logs.Panel()
        .show_time(show_time=True)
        .wrap_log_message(wrap_log_message=False)
        .enable_log_details(enable_log_details=True)
        .sort_order(of.LogsSortOrder.DESCENDING)
        .no_value(none)
    )
    return _finished(panel, title, question, [logql(expr) for expr in exprs], (width, 11))


def note(title: str, markdown: str, *, width: int = 12) -> Panel:
    """Say something in words."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(markdown).span(width).height(9)


_Drawn = TypeVar(
    "_Drawn",
    timeseries.Panel,
    stat.Panel,
    bargauge.Panel,
    heatmap.Panel,
    table.Panel,
    logs.Panel,
    statetimeline.Panel,
    nodegraph.Panel,
)


def _finished(panel: _Drawn, title: str, question: str, queries: Sequence[Query], size: tuple[int, int]) -> _Drawn:
    panel.title(title).description(question).span(size[0]).height(size[1])
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        built = query.build()
        if isinstance(built, UnknownDataquery):
            built.data["refId"] = letter
            panel.datasource(TRACES)
        else:
            built.ref_id = letter  # type: ignore[attr-defined]
            panel.datasource(built.datasource)  # type: ignore[attr-defined]
    panel.targets(list(queries))
    return panel


def _thresholds(steps: Steps | None) -> build.ThresholdsConfig:
    return _steps((None, GOOD), *zip(steps, (WARN, BAD), strict=True)) if steps else _steps((None, GOOD))


def _levels(steps: Steps | None, low_is_bad: Steps | None) -> build.ThresholdsConfig:
    if low_is_bad:
        return _steps((None, BAD), (low_is_bad[0], WARN), (low_is_bad[1], GOOD))
    return _thresholds(steps)


def _steps(*steps: tuple[float | None, str]) -> build.ThresholdsConfig:
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )


def _words(words: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    return model.ValueMap(
        options={value: model.ValueMappingResult(text=said, color=color) for value, (said, color) in words.items()}
    )


def _missing(said: str, color: str) -> model.SpecialValueMap:
    """Say what it means that there is no value. Grafana would give it the colour of the lowest step: good, or bad."""
    result = model.ValueMappingResult(text=said, color=color)
    return model.SpecialValueMap(model.DashboardSpecialValueMapOptions(model.SpecialValueMatch.NULL, result))


def to_its_service(panel: timeseries.Panel, label: str = "job") -> timeseries.Panel:
    """Let each line lead to the dashboard of its service, at the same time."""
    url = f"/d/service?var-service=${{__field.labels.{label}}}&${{__url_time_range}}"
    return panel.data_links([build.DashboardLink("Open ${__field.labels." + label + "}").url(url)])
