"""How panels look, as rules for all of them. Each was broken once, which pictures of Grafana 12.4 showed."""

import json
import re

import pytest

from observability.contract import load as load_contract
from observability.grafana.colours import COLOURS
from tests.dashboards.reading import SERVICES, load, panels

PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}") for uid, board in load().items() for panel in panels(board)
]
NARROW_SCREEN = 1280  # pixels
PANEL_BORDERS = 50


def of_type(*types):
    return those(lambda panel: panel["type"] in types)


def those(wanted):
    """Run a test for each panel that is wanted; a test for none would say nothing, and nobody would see it."""
    found = [one for one in PANELS if wanted(one.values[0])]
    assert found
    return pytest.mark.parametrize("panel", found)


each_panel = pytest.mark.parametrize("panel", PANELS)


def defaults(panel):
    return panel.get("fieldConfig", {}).get("defaults", {})


def overrides(panel):
    """What is different for some series: (pattern of the name, {property: value}), in their order."""
    return [
        (_pattern(one["matcher"]), {change["id"]: change["value"] for change in one["properties"]})
        for one in panel.get("fieldConfig", {}).get("overrides", [])
    ]


def _pattern(matcher):
    if matcher["id"] == "byName":
        return re.compile(re.escape(matcher["options"]) + "$")
    assert matcher["id"] == "byRegexp"
    assert matcher["options"].startswith("/")
    assert matcher["options"].endswith("/")
    return re.compile(matcher["options"][1:-1])


def looks(panel, name):
    """What a series of this name gets by overrides; the last one wins, as in Grafana."""
    found = {}
    for pattern, changes in overrides(panel):
        if pattern.search(name):
            found |= changes
    return found


def exprs(panel):
    return [target["expr"] for target in panel.get("targets", []) if "expr" in target]


# Axes


@of_type("timeseries")
def test_an_axis_of_zeros_ends_where_it_makes_sense(panel):
    custom = defaults(panel)["custom"]
    top = custom["axisSoftMax"]
    assert defaults(panel)["min"] == 0 < top
    if defaults(panel)["unit"] == "percentunit":
        assert top <= 1
    steps = [step["value"] for step in defaults(panel).get("thresholds", {}).get("steps", []) if step["value"]]
    assert not steps or top > steps[0]


@of_type("timeseries")
def test_a_legend_has_room_and_begins_with_the_highest(panel):
    legend = panel["options"]["legend"]
    assert (legend["sortBy"], legend["sortDesc"]) == ("Last *", True)
    assert legend["calcs"][0] == "lastNotNull"
    wide = panel["gridPos"]["w"] >= 12
    assert (legend["displayMode"], legend["placement"]) == (("table", "right") if wide else ("list", "bottom"))


@each_panel
def test_a_unit_needs_no_space_of_its_own_since_grafana_puts_one(panel):
    units = [defaults(panel).get("unit", ""), *(changes.get("unit", "") for _, changes in overrides(panel))]
    for unit in units:
        assert not re.search(r"^\w+: |  ", unit), unit


@those(lambda panel: panel["type"] == "timeseries" and any("$__auto" in expr for expr in exprs(panel)))
def test_bars_made_of_log_lines_are_no_seconds(panel):
    assert int(panel["interval"].removesuffix("s")) >= 15
    assert defaults(panel)["custom"]["drawStyle"] == "bars"


# Colours


@of_type("timeseries")
def test_a_series_has_its_colour_by_its_name(panel):
    assert defaults(panel)["color"]["mode"] == "palette-classic-by-name"


@of_type("timeseries")
def test_what_has_a_colour_of_its_own_has_it_here(panel):
    for target in panel["targets"]:
        labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        wanted = [label for label in labels if label in COLOURS]
        if not wanted:
            continue
        assert target["legendFormat"].startswith("{{" + wanted[0] + "}}"), "else no pattern finds it"
        for value, color in COLOURS[wanted[0]].items():
            name = re.sub(r"\{\{\w+\}\}", value.replace("..", "99"), target["legendFormat"], count=1)
            assert looks(panel, name)["color"]["fixedColor"] == color, name


def values_of(label):
    """All values that the contract allows in what is drawn by this label."""
    contract = load_contract()
    drawn = " ".join(
        target["expr"]
        for panel in PANELS
        for target in panel.values[0].get("targets", [])
        if "{{" + label + "}}" in target.get("legendFormat", "")
    )
    rules = [contract.line[label]] if label in contract.line else []
    for (_, name), metric in contract.metrics.items():
        if label in metric.labels and re.search(rf"\b{name}(_count|_bucket)?\b", drawn):
            rules.append(metric.labels[label])
    return {str(value) for rule in rules for value in rule.values or ()}


@pytest.mark.parametrize("label", sorted(set(COLOURS) - {"job", "peer_service"}))
def test_every_value_has_a_colour(label):
    values = values_of(label)
    assert values
    for value in values - {"0"}:  # nginx's for a client that said nothing; no panel asks for it
        assert any(re.fullmatch(pattern, value) for pattern in COLOURS[label]), value


def test_what_is_good_is_green_and_what_is_not_is_not():
    green = {
        value
        for label, colors in COLOURS.items()
        for value, color in colors.items()
        if label != "job" and "green" in color
    }
    assert green == {"PAID", "ok", "succeeded", "2.."}


def test_every_service_has_a_colour_and_no_two_the_same():
    assert set(COLOURS["job"]) == set(SERVICES)
    assert len(set(COLOURS["job"].values())) == len(SERVICES)


def coloured(panel):
    """What is painted by its value: the settings of all of a panel, or of each of its columns."""
    all_columns = [changes for _, changes in overrides(panel) if "thresholds" in changes]
    return all_columns if panel["type"] == "table" else [defaults(panel)]


@those(lambda panel: panel["type"] in {"stat", "bargauge", "table"} and coloured(panel))
def test_what_is_missing_is_not_coloured_as_good_or_bad(panel):
    """Grafana gives null the colour of the lowest step, whatever `noValue` says, unless it is mapped."""
    for settings in coloured(panel):
        [missing] = [one for one in settings.get("mappings", []) if one["type"] == "special"]
        assert missing["options"]["match"] == "null"
        assert missing["options"]["result"]["color"] == ("text" if panel["type"] == "bargauge" else "transparent")
        assert missing["options"]["result"]["text"] == settings.get("noValue", missing["options"]["result"]["text"])
        assert missing["options"]["result"]["text"]


# What is shown


@of_type("timeseries", "logs", "state-timeline")
def test_an_empty_panel_says_whether_that_is_good(panel):
    assert defaults(panel)["noValue"]


@those(lambda panel: "stacking" in defaults(panel).get("custom", {}) and "orders_total" in json.dumps(exprs(panel)))
def test_no_order_is_counted_twice(panel):
    """Each is PENDING first, and then something else."""
    stacked = [
        target["expr"]
        for target in panel["targets"]
        if looks(panel, target["legendFormat"]).get("custom.stacking", {}).get("mode") != "none"
    ]
    assert stacked
    assert all('status!="PENDING"' in expr for expr in stacked)


@those(lambda panel: panel["type"] in {"bargauge", "stat"} and any("increase(" in expr for expr in exprs(panel)))
def test_what_is_counted_over_time_is_a_whole_number(panel):
    assert all(expr.startswith("round(") for expr in exprs(panel) if "increase(" in expr)
    assert defaults(panel)["decimals"] == 0


@those(lambda panel: any("amount_minor" in expr for expr in exprs(panel)))
def test_money_has_its_currency(panel):
    for target in panel["targets"]:
        assert target["legendFormat"] == "{{currency}}"
        assert looks(panel, "EUR")["unit"] == "currencyEUR"


@of_type("logs")
def test_a_log_line_is_shown_in_words(panel):
    for expr in exprs(panel):
        assert re.search(r"\| line_format \"[^\"]+\"$", expr), expr


@those(lambda panel: panel["type"] == "table" and panel["targets"][0].get("queryType") == "search")
def test_a_table_of_traces_shows_how_long_each_took_on_a_narrow_screen(panel):
    widths = [looks(panel, name)["custom.width"] for name in ("Trace ID", "Start time", "Duration")]
    room = NARROW_SCREEN * panel["gridPos"]["w"] / 24 - PANEL_BORDERS
    assert room - sum(widths) > 100  # for the trace's name, which has the rest


@those(lambda panel: panel["type"] == "table" and len(panel["targets"]) > 1)
def test_a_table_of_several_queries_joins_them_and_names_each(panel):
    letters = [target["refId"] for target in panel["targets"]]
    join, organize = panel["transformations"]
    label = join["options"]["byField"]
    assert (join["id"], organize["id"]) == ("joinByField", "organize")
    titles = organize["options"]["renameByName"]
    assert set(titles) == {label, *(f"Value #{letter}" for letter in letters)}
    for target in panel["targets"]:
        assert (target["format"], target["instant"]) == ("table", True)
        assert re.search(rf"by \({label}\W", target["expr"])
    for letter in letters:
        assert looks(panel, titles[f"Value #{letter}"])["unit"]


@those(lambda panel: panel["type"] == "stat" and panel["title"] == "Parts")
def test_names_of_many_parts_can_be_read(panel):
    assert panel["gridPos"]["w"] == 24
    assert panel["options"]["text"]["titleSize"] <= panel["options"]["text"]["valueSize"] <= 20
