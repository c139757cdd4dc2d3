"""The stack that all tests here share: there can be one only, as its name, ports and volumes are fixed."""

import os
import signal
import sys
import time

import pytest

from tests.compose import grafana
from tests.compose.composed import OVERLAY, ComposedShop, LightShop, ObservedShop
from tests.fixtures.kept import unless_all_is_well

LOKI = pytest.StashKey[str]()
"""Which Loki ran, for the summary."""
GRAFANA = pytest.StashKey[str]()
"""How many tests of Grafana were left out, and why, for the summary."""


@pytest.hookimpl(trylast=True)  # when it is known which tests are asked for
def pytest_collection_modifyitems(items, config):
    """Run what wants the light overlay after the rest, and what wants the full one last: the stack gets each once.

    Leave out what asks Grafana where it cannot be had. That is said in the summary, as where the embedded backend
    stands in for Loki: a skip is a failure in CI, and is for what should have been there.
    """
    items.sort(key=_overlay)
    asking = [item for item in items if item.path.name == "test_grafana.py"]
    if asking and (why := grafana.missing()):
        config.stash[GRAFANA] = f"{len(asking)} tests of Grafana itself were left out: {why}"
        config.hook.pytest_deselected(items=asking)
        items[:] = [item for item in items if item not in asking]


def _overlay(item):
    service = item.callspec.params.get("service") if hasattr(item, "callspec") else None
    wanted = getattr(item, "fixturenames", ())
    if "observed" in wanted or ("stack" in wanted and service in OVERLAY):
        return 2
    return int("light" in wanted)


def pytest_terminal_summary(terminalreporter, config):
    """Say which Loki these tests were about, and whether Grafana was asked."""
    for key in (LOKI, GRAFANA):
        if told := config.stash.get(key, ""):
            terminalreporter.write_line(told)


@pytest.fixture(scope="session")
def shop(request, tmp_path_factory):
    """A stack from a clean state. Nothing of it is left afterwards but images."""
    running = ComposedShop(tmp_path_factory.mktemp("compose"))
    which = "Loki itself" if running.loki == "real" else "not Loki but the embedded backend in its place"
    request.config.stash[LOKI] = f"tests/compose ran with {which} ({running.why})"
    volumes = running.run("docker", "volume", "ls", "--quiet", "--filter", "name=^devopsmicroservices_").split()
    if volumes and not os.environ.get("CI_NO_SKIPS"):
        pytest.fail("There is a stack, or its data: these tests would delete it. First: docker compose down -v")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends the tests early wants no stack left either
    try:
        running.down()
        with unless_all_is_well(request, running.keep, "compose"):
            began = time.monotonic()
            running.compose("up", "-d", "--build", "--wait", seconds=400)
            tell(request, f"`docker compose up -d --build --wait` took {time.monotonic() - began:.0f} s")
            yield running
    finally:
        running.gateway.session.close()
        running.down()


@pytest.fixture(scope="session")
def token(shop):
    """The demo login's token."""
    return shop.login()


@pytest.fixture
def switch(shop):
    """Type `make fault` as a person would, in the clone; all is off afterwards."""

    def typed(wanted):
        return shop.run(sys.executable, "-m", "scenarios", "fault", wanted)

    yield typed
    typed("all=off")


@pytest.fixture(scope="module")
def light(shop, request):
    """The stack with docker-compose.light.yml on top, for one file of tests."""
    with unless_all_is_well(request, shop.keep, "compose-light"):
        running = LightShop(shop)
        tell(request, f"with the light overlay it took {running.started_after:.0f} s")
        yield running
    running.close()
    running.end()


@pytest.fixture(scope="session")
def observed(shop, request):
    """The stack with docker-compose.observability.yml on top, from now on; with a stand-in where Loki cannot be had."""
    running = ObservedShop(shop)
    tell(
        request, f"with the observability overlay it took {running.started_after:.0f} s; Loki: {shop.loki}, {shop.why}"
    )
    yield running
    running.close()


@pytest.fixture
def stack(request, service):
    """The stack in which a service is: with the overlay, if it is of the overlay."""
    return request.getfixturevalue("observed" if service in OVERLAY else "shop")


def tell(request, text):
    """Print a line for the person who runs the tests."""
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}")
