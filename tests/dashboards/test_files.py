"""The dashboards' files: made by the generator, valid, and whole in themselves."""

import itertools
import json
import re

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from observability.grafana import files
from tests.dashboards.reading import FOLDER, chosen, load, panels, resolved
from tests.fixtures.stack import PROJECT

BOARDS = load()
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in panels(board)]
SOURCES = yaml.safe_load((FOLDER.parent / "provisioning" / "datasources" / "datasources.yaml").read_text())
each_dashboard = pytest.mark.parametrize("uid", BOARDS)
each_panel = pytest.mark.parametrize(
    ("uid", "panel"), PANELS, ids=[f"{uid}: {panel['title']}" for uid, panel in PANELS]
)


def test_they_are_what_the_generator_makes():
    committed = {file: file.read_text() for file in files.committed()}
    assert committed == files.texts(), "run `make dashboards`"


@each_dashboard
def test_grafana_s_own_model_of_a_dashboard_loses_nothing_of_it(uid):
    """The SDK's classes are made of Grafana's schema: what it does not know would not come back."""
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARDS[uid])))
    for one in (*again["links"], *again["annotations"]["list"]):
        assert one.pop("placement") == "inControlsMenu"  # optional; the SDK always writes it
    assert again == BOARDS[uid]


@each_dashboard
def test_it_is_of_the_classic_form_that_grafana_13_provisions(uid):
    board = BOARDS[uid]
    assert board["schemaVersion"] <= 42
    assert not {"apiVersion", "kind", "spec", "elements"} & set(board)
    assert board["uid"] == uid
    assert re.fullmatch(r"[a-z-]{1,40}", uid)
    assert board["editable"] is False
    assert board["description"].endswith((".", "?"))


def test_their_uids_and_titles_are_unique():
    for name in ("uid", "title"):
        values = [board[name] for board in BOARDS.values()]
        assert len(set(values)) == len(values)


@each_dashboard
def test_the_ids_of_its_panels_are_unique_and_no_two_panels_overlap_or_leave_a_hole(uid):
    board = BOARDS[uid]["panels"]
    assert len({panel["id"] for panel in board}) == len(board)
    taken = set()
    for panel in board:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(height)}


@each_dashboard
def test_it_is_in_sections_with_titles_and_panels_side_by_side_are_equally_high(uid):
    board = BOARDS[uid]["panels"]
    assert board[0]["type"] == "row"
    for above, below in itertools.pairwise(board):
        assert not above["type"] == below["type"] == "row"
        if above["gridPos"]["y"] == below["gridPos"]["y"]:
            assert above["gridPos"]["h"] == below["gridPos"]["h"]
    rows = [panel["title"] for panel in board if panel["type"] == "row"]
    assert all(rows)
    assert len(set(rows)) == len(rows) > 1


@each_panel
def test_a_panel_answers_a_question_in_a_unit(uid, panel):
    if panel["type"] == "text":
        assert panel["options"]["content"]
        return
    assert "?" in panel["description"]
    assert panel["targets"]
    if panel["type"] in {"timeseries", "stat", "bargauge"}:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target.get("legendFormat") for target in panel["targets"])
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]


@each_panel
def test_a_colour_is_never_the_only_signal(uid, panel):
    """Where thresholds colour something, its value stands there too, or a line says where the threshold is."""
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    steps = defaults.get("thresholds", {}).get("steps", [])
    colors = {step["color"] for step in steps}
    assert not any("green" in color for color in colors)
    if len(steps) < 2:
        return
    match panel["type"]:
        case "timeseries":
            assert defaults["custom"]["thresholdsStyle"]["mode"] == "dashed"
        case "stat":
            assert panel["options"]["textMode"] == "value_and_name"
        case "bargauge":
            assert panel["options"]["valueMode"] != "hidden"
        case "table":
            pass  # its cells have values
        case other:
            raise AssertionError(f"what says it in a {other}?")


@each_panel
def test_every_data_source_is_one_that_is_provisioned(uid, panel):
    known = {(source["type"], source["uid"]) for source in SOURCES["datasources"]}
    for part in (panel, *panel.get("targets", [])):
        if "datasource" in part:
            assert (part["datasource"]["type"], part["datasource"]["uid"]) in known
    assert len({target["refId"] for target in panel.get("targets", [])}) == len(panel.get("targets", []))


def test_every_variable_that_is_used_is_there_and_every_one_that_is_there_is_used():
    for board in BOARDS.values():
        declared = chosen(board)
        used = set()
        for panel in panels(board):
            for target in panel.get("targets", []):
                text = json.dumps({key: value for key, value in target.items() if key != "legendFormat"})
                assert not re.search(r"\$\D", resolved(text, declared)), panel["title"]
                used |= set(re.findall(r"\$\{?(\w+)", text))
        assert set(declared) <= used
        for variable in board["templating"]["list"]:
            if variable["type"] == "custom":
                value = variable["current"]["value"]
                assert value == ["$__all"] or value in variable["query"].split(",")


def test_every_link_leads_to_a_dashboard_that_is_there_and_sets_variables_that_it_has():
    for uid, board in BOARDS.items():
        links = [link["url"] for link in board["links"]]
        assert {link.removeprefix("/d/") for link in links} == set(BOARDS) - {uid}
        for panel in panels(board):
            found = [link["url"] for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", [])]
            links += [link for link in found if not link.startswith("/d/runbook-")]  # test_links.py has those
        for link in links:
            path, _, query = link.partition("?")
            target = path.removeprefix("/d/")
            assert target in BOARDS, link
            assert set(re.findall(r"var-(\w+)=", query)) <= set(chosen(BOARDS[target])), link


def test_what_alerts_and_annotations_link_to_is_there():
    rules = PROJECT / "observability" / "prometheus" / "rules"
    links = {
        rule["annotations"]["dashboard_url"]
        for file in rules.glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert links
    for link in links:
        path, _, query = link.partition("?")
        uid = path.rpartition("/d/")[2]
        assert uid in BOARDS, link
        assert set(re.findall(r"var-(\w+)=", query)) <= set(chosen(BOARDS[uid])), link


def test_a_dashboard_says_by_its_tags_what_it_needs():
    for uid, board in BOARDS.items():
        needs_locust = all(
            "loadtest_" in json.dumps(panel["targets"]) for panel in list(panels(board))[:2] if "targets" in panel
        )
        assert ("load" in board["tags"]) == needs_locust, uid
        assert "shop" in board["tags"]


def test_grafana_is_given_the_folder_read_only():
    [provider, runbooks] = yaml.safe_load(
        (FOLDER.parent / "provisioning" / "dashboards" / "dashboards.yaml").read_text()
    )["providers"]
    assert provider["allowUiUpdates"] is runbooks["allowUiUpdates"] is False
    overlay = yaml.safe_load((PROJECT / "docker-compose.observability.yml").read_text())
    grafana = overlay["services"]["grafana"]
    assert f"./observability/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    [mounted] = [one for one in grafana["volumes"] if one.startswith("./observability/grafana/provisioning:")]
    assert runbooks["options"]["path"] == f"{mounted.split(':')[1]}/{files.RUNBOOKS.name}"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, _, name = home.rpartition("/")
    assert folder == provider["options"]["path"]
    assert (FOLDER / name).exists()
    assert grafana["environment"]["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == "false"
