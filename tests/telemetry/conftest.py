"""One walk through the shared stack, for all tests that look at what it left."""

import pytest

from tests.telemetry.evidence import gather
from tests.telemetry.watch import WatchedLocally


def pytest_collection_modifyitems(items):
    for item in items:
        if "/telemetry/" in item.nodeid and "stack" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(240))  # the first one starts the stack and walks through all of it


@pytest.fixture(scope="session")
def watched(stack):
    watching = WatchedLocally(stack)
    yield watching
    watching.close()


@pytest.fixture(scope="session")
def evidence(watched):
    return gather(watched)
