"""A key in wrong hands: withdrawn, and refused by every service within the time that the command states."""

import time

import pytest

from servicekit.auth import REFRESH_SECONDS
from tests.fixtures.services import eventually

pytestmark = pytest.mark.slow

ASKED = {"auth": "/auth/validate", "user": "/users/me", "order": "/orders/", "payment": "/payments/1"}
SLACK_SECONDS = 15  # the machine may be busy


def test_a_revoked_key_is_refused_by_all_and_the_shop_goes_on(own_stack):
    stack = own_stack()
    token = stack.login()

    def accepting():
        return {name for name, path in ASKED.items() if stack.service(name).get(path, token).status_code != 401}

    assert accepting() == set(ASKED)
    done = stack.command("rotate-keys", "--revoke")
    since = time.monotonic()
    assert done.returncode == 0, done.stderr
    assert f"within {REFRESH_SECONDS:.0f} s" in done.stdout
    assert "auth" not in accepting()
    eventually(lambda: not accepting(), REFRESH_SECONDS + SLACK_SECONDS - (time.monotonic() - since), pause=0.2)
    again = stack.login()
    assert stack.gateway.post("/orders/", {"product_id": 1}, again).status_code == 201


def test_the_demo_login_is_closed_and_opened_at_the_next_start(own_stack):
    stack = own_stack()
    credentials = {"username": "admin", "password": "password"}

    def restarted(value):
        assert stack.command("down").returncode == 0
        stack._environment["SEED_DEMO_ADMIN"] = value
        done = stack.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert stack.gateway.post("/auth/login", credentials).status_code == 200
    assert "closed the demo login" in restarted("false")
    assert stack.gateway.post("/auth/login", credentials).status_code == 401
    assert "opened the demo login again" in restarted("true")
    assert stack.gateway.post("/auth/login", credentials).status_code == 200
