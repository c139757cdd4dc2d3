"""The stack that all tests here share: there can be one only, as its name, ports and volumes are fixed."""

import os
import signal
import time

import pytest

from tests.compose.composed import ComposedShop


@pytest.fixture(scope="session")
def shop(request, tmp_path_factory):
    """A stack from a clean state. Nothing of it is left afterwards but images."""
    running = ComposedShop(tmp_path_factory.mktemp("compose"))
    volumes = running.run("docker", "volume", "ls", "--quiet", "--filter", "name=^devopsmicroservices_").split()
    if volumes and not os.environ.get("CI_NO_SKIPS"):
        pytest.fail("There is a stack, or its data: these tests would delete it. First: docker compose down -v")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends the tests early wants no stack left either
    try:
        running.compose("down", "--volumes", "--remove-orphans", seconds=120)
        began = time.monotonic()
        running.compose("up", "-d", "--build", "--wait", seconds=400)
        with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            print(f"`docker compose up -d --build --wait` took {time.monotonic() - began:.0f} s")  # noqa: T201
        yield running
    finally:
        running.gateway.session.close()
        running.compose("down", "--volumes", "--remove-orphans", seconds=120)


@pytest.fixture(scope="session")
def token(shop):
    """The demo login's token."""
    return shop.login()
