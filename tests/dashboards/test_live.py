"""Every query of every panel is asked of a healthy shop under light load, and answered with finite numbers.

Of the distribution's Prometheus and the embedded backend, and of a newer Prometheus, the real Loki and Jaeger where
they are there.
"""

import contextlib

import pytest

from observability.contract import load as load_contract
from tests.dashboards.conftest import copy_log, wait_until_right
from tests.dashboards.names import Names
from tests.dashboards.reading import SERVICES, load, of_annotations, of_panels, panels
from tests.fixtures.programs import has_program
from tests.fixtures.real import is_there

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("dashboards")]

BOARDS = load()
NAMES = Names(load_contract())


def here(query):
    """Whether local mode has what the query asks for, and the chosen service emits it."""
    if query.source != "prometheus":
        return True
    modes, services = NAMES.modes(query.expr)
    return "local" in modes and (query.service is None or query.service in (services or ()))


QUERIES = [query for query in of_panels(BOARDS) if here(query)]
NEWER = bool(has_program("prometheus"))
REAL = {"prometheus": NEWER, "loki": is_there("loki"), "jaeger": is_there("jaeger")}
newer = pytest.mark.skipif(not NEWER, reason="no prometheus here: neither in BACKEND_BINARIES nor on PATH")


@pytest.fixture(scope="module", autouse=True)
def warm(backends, promethei, real_loki):
    """Wait until there is enough to see: rates need two scrapes, SLOs some evaluations."""

    def some_missing():
        asked = [(one, query) for one in promethei for query in QUERIES if query.source == "prometheus"]
        asked += [(backends, query) for query in QUERIES if query.source != "prometheus"]
        return [str(query) for one, query in asked if one.fault(query)] or None

    with contextlib.suppress(AssertionError):  # each test says for itself what is missing
        wait_until_right(some_missing, 90)
    if real_loki:
        copy_log(backends.loki, real_loki)


def test_every_panel_has_something_to_show_in_local_mode():
    asked = {query.place.rpartition(",")[0] for query in QUERIES}
    wanted = {
        f"{uid}: {panel['title']}" for uid, board in BOARDS.items() for panel in panels(board) if "targets" in panel
    }
    assert asked == wanted


@pytest.mark.parametrize(
    ("where", "query"),
    [
        *(("local mode", query) for query in QUERIES),
        *(("the real ones", query) for query in QUERIES if REAL[query.source]),
    ],
    ids=str,
)
def test_it_is_answered(backends, others, patience, where, query):
    one = {"local mode": backends, "the real ones": others}[where]
    patience(lambda: one.fault(query))


@pytest.mark.parametrize("query", [query for query in QUERIES if query.fields.get("exemplar")], ids=str)
def test_the_points_beside_it_open_traces(backends, promethei, patience, query):
    def fault():
        for one in promethei:
            found = one.exemplars(query.expr)
            if not found:
                return "no exemplar"
            if not backends.opens(found[-1]):
                return f"trace {found[-1]} is not there"
        return None

    patience(fault)


@newer
def test_the_versions_of_prometheus_differ(versions):
    assert [version.partition(".")[0] for version in versions] == ["2", "3"]


@newer
def test_prometheus_3_parses_every_query_even_those_that_local_mode_cannot_answer(others):
    for query in [*of_panels(BOARDS), *of_annotations(BOARDS)]:
        if query.source == "prometheus":
            answer = others.prometheus.get("/api/v1/parse_query", params={"query": query.expr})
            assert answer.status_code == 200, f"{query}: {answer.text}"


@pytest.mark.parametrize(
    ("name", "offered"), [("service", set(SERVICES)), ("route", {"/orders/", "/orders/{order_id}"})]
)
def test_a_variable_offers_all_that_there_is(promethei, name, offered):
    [variable] = [one for one in BOARDS["service"]["templating"]["list"] if one["name"] == name]
    for one in promethei:
        found = set(one.values_of_variable(variable))
        assert found == offered if name == "service" else found >= offered


@pytest.mark.parametrize("query", list(of_annotations({"overview": BOARDS["overview"]})), ids=str)
def test_an_annotation_marks_what_happened_and_nothing_else(promethei, patience, query):
    allowed = {
        "starts": {None},
        "load runs": {None},
        "faults": {"no series"},
        "pages": {None, "no series"},  # on a busy machine orders may be slow enough for one
    }[query.place.partition(": annotation ")[2]]

    def fault():
        found = {one.fault(query) for one in promethei}
        return None if found <= allowed else str(found)

    patience(fault)
