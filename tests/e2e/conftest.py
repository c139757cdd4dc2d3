"""People who use the shared stack."""

import pytest

from tests.fixtures.stack import LocalStack


@pytest.fixture(scope="session")
def admin(stack):
    return stack.login()


@pytest.fixture(scope="session")
def customer(stack):
    """A token of somebody who registered."""
    answer = stack.gateway.post("/users/", {"username": "grace", "password": "correct horse"})
    assert answer.status_code == 201, answer.text
    return stack.login("grace", "correct horse")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A stack that the tests of one file may load, freeze, kill and stop, as long as each leaves it well."""
    running = LocalStack(tmp_path_factory.mktemp("shop"))
    running.up()
    yield running
    running.down()
