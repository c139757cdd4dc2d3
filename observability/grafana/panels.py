"""The kinds of panels that the dashboards are made of.

Every panel answers a question, which is its description, and has a unit. Colours go from blue over orange to red, and
what a colour says is said in words or by a line too: not everybody sees the difference between red and green.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, logs, stat, table, text, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as of
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from observability.grafana.queries import RATE, TRACES, Search, logql, promql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.builders import prometheus

GOOD, WARN, BAD = "blue", "dark-orange", "dark-red"

Steps = tuple[float, float]
"""From where on it is worth a look, and from where on it is bad."""

Panel = Builder[model.Panel]
Query = Builder[Dataquery]


def graph(
    title: str, question: str, *queries: Query, unit: str, steps: Steps | None = None, width: int = 12, none: str = ""
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
        .line_width(2)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(of.LegendDisplayMode.TABLE)
            .placement(of.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(of.TooltipDisplayMode.MULTI).sort(of.SortOrder.DESCENDING))
    )
    if steps:
        panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(of.GraphThresholdsStyleMode.DASHED)
        )
    if none:
        panel.no_value(none)
    return _finished(panel, title, question, queries, (width, 8))


def stack(title: str, question: str, *queries: Query, unit: str, width: int = 12) -> timeseries.Panel:
    """Draw areas on top of each other: parts of a whole."""
    return (
        graph(title, question, *queries, unit=unit, width=width)
        .fill_opacity(40)
        .stacking(common.StackingConfig().mode(of.StackingMode.NORMAL))
    )


def numbers(
    title: str,
    question: str,
    *queries: Query,
    unit: str,
    steps: Steps | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    width: int = 6,
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
    if words:
        panel.mappings([_words(words)])
    return _finished(panel, title, question, queries, (width, 5))


def bars(
    title: str,
    question: str,
    *queries: Query,
    unit: str,
    low_is_bad: Steps | None = None,
    steps: Steps | None = None,
    width: int = 12,
) -> bargauge.Panel:
    """Show a bar a series, with its value as text beside it.

    Args:
        title: What is to be seen.
        question: What it answers.
        queries: What is shown.
        unit: Grafana's name of the unit.
        low_is_bad: Below which value it is bad, and worth a look.
        steps: From where on it is worth a look, and bad.
        width: Of 24 columns.
    """
    panel = (
        bargauge.Panel()
        .unit(unit)
        .min(0)
        .orientation(of.VizOrientation.HORIZONTAL)
        .display_mode(of.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(steps))
    )
    if low_is_bad:
        spent = model.DashboardRangeMapOptions(
            to=low_is_bad[0], result=model.ValueMappingResult(text="spent", color=BAD)
        )
        panel.max(1).mappings([model.RangeMap(options=spent)])
        panel.thresholds(_steps((None, BAD), (low_is_bad[0], WARN), (low_is_bad[1], GOOD)))
    return _finished(panel, title, question, queries, (width, 7))


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


def rows(
    title: str, question: str, *queries: prometheus.Dataquery, columns: Mapping[str, str], width: int = 12
) -> Panel:
    """Show a table of what is now.

    Args:
        title: What is to be seen.
        question: What it answers.
        queries: What is shown.
        columns: The labels to show, and `Value`, in this order, with their titles.
        width: Of 24 columns.
    """
    organize = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True},
            "indexByName": {name: position for position, name in enumerate(columns)},
            "renameByName": dict(columns),
        },
    )
    panel = table.Panel().with_transformation(organize)
    return _finished(panel, title, question, [query.format(PromQueryFormat.TABLE) for query in queries], (width, 5))


def found_traces(title: str, question: str, search: Search, *, width: int = 12) -> Panel:
    """Show the traces that a search finds, the slowest first; each opens."""
    panel = table.Panel().sort_by([common.TableSortByFieldState().display_name("Duration").desc(desc=True)])
    return _finished(panel, title, question, [search], (width, 9))


def lines(title: str, question: str, expr: str, *, width: int = 12) -> Panel:
    """Show log lines, the newest first; each leads to its trace."""
    panel = (
        logs.Panel()
        .show_time(show_time=True)
        .wrap_log_message(wrap_log_message=False)
        .enable_log_details(enable_log_details=True)
        .sort_order(of.LogsSortOrder.DESCENDING)
    )
    return _finished(panel, title, question, [logql(expr)], (width, 9))


def note(title: str, markdown: str, *, width: int = 12) -> Panel:
    """Say something in words."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(markdown).span(width).height(9)


_Drawn = TypeVar("_Drawn", timeseries.Panel, stat.Panel, bargauge.Panel, heatmap.Panel, table.Panel, logs.Panel)


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


def to_its_service(panel: timeseries.Panel, label: str = "job") -> timeseries.Panel:
    """Let each line lead to the dashboard of its service, at the same time."""
    url = f"/d/service?var-service=${{__field.labels.{label}}}&${{__url_time_range}}"
    return panel.data_links([build.DashboardLink("Open ${__field.labels." + label + "}").url(url)])
