"""People who use the shared stack."""

import pytest


@pytest.fixture(scope="session")
def admin(stack):
    return stack.login()


@pytest.fixture(scope="session")
def customer(stack):
    """A token of somebody who registered."""
    answer = stack.gateway.post("/users/", {"username": "grace", "password": "correct horse"})
    assert answer.status_code == 201, answer.text
    return stack.login("grace", "correct horse")
