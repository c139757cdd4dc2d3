"""Grafana itself, through the API that its page uses: data sources, every panel, the links, the way in without a login.

Where Grafana's image cannot be had, all of this is left out, and the summary says so.
"""

import contextlib
import json
import time

import pytest

from tests.compose.grafana import Grafana, frames_of, has_values
from tests.compose.test_dashboards import QUERIES
from tests.dashboards.conftest import wait_until_right
from tests.dashboards.links import GRAFANA, sources
from tests.dashboards.reading import FOLDER, panels
from tests.dashboards.shopping import Shopping
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

SOURCES = sources()
BOARDS = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
RUNBOOKS = {
    board["uid"]: board
    for board in (json.loads(file.read_text()) for file in (GRAFANA / "provisioning" / "runbooks").glob("*.json"))
}
UIDS = [board["uid"] for board in BOARDS.values()]


@pytest.fixture(scope="module")
def grafana(observed):
    """Grafana as nobody, while people are in the shop."""
    asked = Grafana(observed.grafana_url)
    people = Shopping(observed.gateway.root)
    try:
        with contextlib.suppress(AssertionError):  # each test says for itself what is missing
            wait_until_right(lambda: [str(one) for one in QUERIES if asked.fault(one)] or None, 120)
        yield asked
    finally:
        people.stop()
        asked.session.close()


@pytest.mark.parametrize("uid", SOURCES)
def test_a_data_source_is_healthy(grafana, uid):
    said = grafana.read(f"/api/datasources/uid/{uid}/health")
    assert said["status"] == "OK", said


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_grafana_answers_a_panels_query(grafana, query):
    wait_until_right(lambda: grafana.fault(query))


def test_every_dashboard_and_runbook_is_found(grafana):
    found = {one["uid"]: one for one in grafana.read("/api/search", type="dash-db", limit=1000)}
    folders = {uid: one.get("folderTitle") for uid, one in found.items()}
    assert folders == dict.fromkeys(UIDS, "Shop") | dict.fromkeys(RUNBOOKS, "Runbooks")


@pytest.mark.parametrize("uid", [*UIDS, *RUNBOOKS])
def test_a_dashboard_is_as_its_file_says_and_nobody_can_change_it(grafana, uid):
    shown = grafana.read(f"/api/dashboards/uid/{uid}")
    file = {board["uid"]: board for board in [*BOARDS.values(), *RUNBOOKS.values()]}[uid]
    assert shown["meta"]["provisioned"] is True
    assert shown["meta"]["canSave"] is False
    titles = [panel.get("title") for panel in panels(shown["dashboard"])]
    assert titles == [panel.get("title") for panel in panels(file)]


def test_the_first_page_is_the_overview(grafana):
    home = grafana.read("/api/dashboards/home")["dashboard"]
    assert home["title"] == BOARDS["overview"]["title"]
    assert [panel.get("title") for panel in panels(home)] == [
        panel.get("title") for panel in panels(BOARDS["overview"])
    ]


def test_nobody_is_sent_to_a_login_and_everybody_may_explore(grafana):
    page = grafana.get("/")
    assert page.status_code == 200
    assert not page.url.endswith("/login")
    settings = grafana.read("/api/frontend/settings")
    assert settings["anonymousEnabled"] is True
    assert settings["exploreEnabled"] is True
    assert settings["viewersCanEdit"] is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/dashboards/db", {"dashboard": {"title": "mine", "panels": []}, "overwrite": False}),
        ("/api/datasources", {"name": "mine", "type": "prometheus", "access": "proxy", "url": "http://elsewhere"}),
        ("/api/folders", {"title": "mine"}),
    ],
)
def test_nobody_can_change_anything_without_a_login(grafana, path, body):
    assert grafana.post(path, body).status_code in {401, 403}


def known_to_the_page(grafana):
    """The data sources as the page in a browser has them, links and all: uid -> settings."""
    found = grafana.read("/api/frontend/settings")["datasources"].values()
    return {one["uid"]: one for one in found if one["uid"] in SOURCES}


@pytest.mark.parametrize("uid", SOURCES)
def test_a_data_sources_links_are_those_of_its_file(grafana, uid):
    shown = known_to_the_page(grafana)[uid]
    assert shown["type"] == SOURCES[uid]["type"]
    wanted = SOURCES[uid]["jsonData"]
    assert {key: shown["jsonData"].get(key) for key in wanted} == wanted


def test_an_order_is_followed_from_log_line_to_trace_with_the_links_that_grafana_has(grafana, observed):
    """By what Grafana returns: the label of the derived field, and the source that it leads to."""
    [field] = known_to_the_page(grafana)["loki"]["jsonData"]["derivedFields"]
    _, trace_id = observed.place_order(observed.login())
    line = {
        "refId": "A",
        "datasource": {"type": "loki", "uid": "loki"},
        "queryType": "range",
        "expr": f'{{service_name="order-service"}} | {field["matcherRegex"]}="{trace_id}"',
        "maxLines": 10,
    }
    spans = {
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": field["datasourceUid"]},
        "query": field["url"].replace("${__value.raw}", trace_id),
    }
    for query in (line, spans):

        def there(query=query):
            now = int(time.time() * 1000)
            body = {"queries": [query], "from": str(now - 600_000), "to": str(now)}
            return any(has_values(frame) for frame in frames_of("A", grafana.post("/api/ds/query", body)))

        eventually(there, 30, pause=0.5)
