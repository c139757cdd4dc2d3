"""All of these use one stack, so one worker runs them."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.fixture(scope="session")
def admin(stack):
    return stack.login()


@pytest.fixture(scope="session")
def customer(stack):
    """A token of somebody who registered."""
    answer = stack.gateway.post("/users/", {"username": "grace", "password": "correct horse"})
    assert answer.status_code == 201, answer.text
    return stack.login("grace", "correct horse")
