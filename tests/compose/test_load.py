"""The load test in Docker Compose: its profile starts it, workers make the load, the books are balanced."""

import json

import pytest

from tests.compose.composed import LOAD
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

PROFILE = {"COMPOSE_PROFILES": "load"}
CHOSEN = {"LOAD_SHAPE": "smoke", "LOAD_SECONDS": "15", "LOAD_USERS": "4", "LOAD_WORKERS": "2"}


def health(shop, service):
    return shop.inspect(service)["State"]["Health"]["Status"]


def test_without_its_profile_there_is_no_load(shop, observed):
    assert not set(LOAD) & set(shop.compose("ps", "--all", "--services").split())


def test_workers_make_the_load_and_the_exit_status_is_the_verdict(shop, observed):
    command = ("up", "-d", "--build", "--no-deps", "--scale", "loadtest-worker=2", *LOAD)
    shop.compose(*command, seconds=240, **PROFILE, **CHOSEN)
    try:
        eventually(lambda: observed.metric("sum(loadtest_users)") == [({}, 4)], 60, pause=0.5)
        assert observed.metric("count(loadtest_users > 0)") == [({}, 2)]
        eventually(lambda: all(health(shop, service) == "healthy" for service in LOAD), 20, pause=0.5)
        shop.compose("wait", "loadtest", seconds=90, **PROFILE)  # fails with its exit status
        shown = shop.compose("logs", "--no-log-prefix", "loadtest", **PROFILE)
        assert "GOOD: all limits kept, the books are balanced." in shown
        folder = shop.clone / "results"
        shop.compose("cp", "loadtest:/results", str(folder), **PROFILE)
        report = json.loads((folder / "latest" / "report.json").read_text())
        assert report["books"]["told"] > 0
        assert report["server"]["services"]["order-service"]["rate"] > 0
        kept = f"SELECT count(*) FROM orders.orders WHERE idempotency_key LIKE '{report['run']}-%'"
        assert shop.query(kept) == [(report["books"]["told"],)]
        for service in LOAD:
            assert shop.inspect(service)["State"]["ExitCode"] == 0
    finally:
        shop.compose("rm", "--stop", "--force", *LOAD, **PROFILE)
