"""What needs a whole stack shares that of the end-to-end tests, so one worker runs it."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "/loadtest/" in item.nodeid and "stack" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("stack"))
