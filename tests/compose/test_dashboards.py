"""The dashboards in Docker Compose: what only its backends have is answered there, and Grafana has the files."""

import contextlib
import json

import pytest

from observability.contract import load as load_contract
from tests.dashboards.asking import Backends
from tests.dashboards.conftest import wait_until_right
from tests.dashboards.names import Names
from tests.dashboards.reading import FOLDER, load, of_panels, panels
from tests.dashboards.shopping import Shopping
from tests.fixtures.services import Client

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

BOARDS = {uid: board for uid, board in load().items() if "load" not in board["tags"]}
NAMES = Names(load_contract())


def here(query):
    """Whether Docker Compose has what the query asks for, and the chosen service emits it."""
    if query.source != "prometheus":
        return True
    modes, services = NAMES.modes(query.expr)
    return "compose" in modes and (query.service is None or query.service in (services or ()))


QUERIES = [query for query in of_panels(BOARDS) if here(query)]


@pytest.fixture(scope="module")
def backends(observed):
    """The overlay's backends, while people are in the shop."""
    clients = [Client(url) for url in (observed.prometheus_url, observed.loki_url, observed.jaeger_url)]
    asked = Backends(*clients)
    people = Shopping(observed.gateway.root)

    def some_missing():
        return [str(query) for query in QUERIES if asked.fault(query)] or None

    try:
        with contextlib.suppress(AssertionError):  # each test says for itself what is missing
            wait_until_right(some_missing, 120)
        yield asked
    finally:
        people.stop()
        for client in clients:
            client.session.close()


def test_every_panel_has_something_to_show_in_compose():
    asked = {query.place.rpartition(",")[0] for query in QUERIES}
    wanted = {
        f"{uid}: {panel['title']}" for uid, board in BOARDS.items() for panel in panels(board) if "targets" in panel
    }
    assert asked == wanted


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_it_is_answered_by_compose(backends, query):
    wait_until_right(lambda: backends.fault(query))


def test_grafana_has_the_files(observed):
    for file in FOLDER.glob("*.json"):
        status, text = observed.inside("grafana", "cat", f"/etc/grafana/dashboards/{file.name}")
        assert status == 0, text
        assert json.loads(text) == json.loads(file.read_text())
