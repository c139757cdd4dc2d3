"""Whether the gateway answers is asked from outside: a dead one says as little in its log as an idle one."""

import contextlib
import socket

import pytest

from tests.fixtures.gateway import start_gateway
from tests.fixtures.gateway_telemetry import start_telemetry
from tests.fixtures.services import eventually

__all__ = ["start_gateway", "start_telemetry"]


def up(telemetry):
    """The metric; None while there is none."""
    text = telemetry.http.get("/metrics").text
    return telemetry.metric("gateway_up") if "\ngateway_up " in text else None


def test_a_gateway_that_answers_is_up_and_one_that_ended_is_not(start_gateway, start_telemetry):
    gateway = start_gateway()
    telemetry = start_telemetry(GATEWAY_URL=f"http://127.0.0.1:{gateway.port}")
    eventually(lambda: up(telemetry) == 1)
    assert "/healthz" not in gateway.output()  # good health is not logged
    gateway.process.terminate()
    eventually(lambda: up(telemetry) == 0)


def stopped_during_a_probe(start_telemetry):
    """Seconds that the end takes while the gateway takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        telemetry = start_telemetry(GATEWAY_URL=f"http://127.0.0.1:{hanging.getsockname()[1]}")
        eventually(lambda: up(telemetry) == 0, 15)
        hanging.settimeout(0)
        with contextlib.ExitStack() as probes:
            with contextlib.suppress(BlockingIOError):  # those that were there before
                while True:
                    probes.enter_context(hanging.accept()[0])
            hanging.settimeout(10)
            probes.enter_context(hanging.accept()[0])
            return telemetry.stop()


def test_a_gateway_that_takes_connections_and_never_answers_is_down(start_telemetry):
    # A probe gives up after 2 s, and the end does not wait for that. A busy machine has three tries.
    assert any(stopped_during_a_probe(start_telemetry) < 1.7 for _ in range(3))


def test_one_that_answers_nonsense_is_down(start_gateway, start_telemetry):
    gateway = start_gateway()
    telemetry = start_telemetry(GATEWAY_URL=f"http://127.0.0.1:{gateway.services['order'].port}")
    gateway.services["order"].reply = lambda _: b"nonsense\r\n\r\n"
    eventually(lambda: up(telemetry) == 0)


def test_without_an_address_nobody_asks_and_there_is_no_such_metric(start_telemetry):
    assert up(start_telemetry()) is None


@pytest.mark.parametrize("url", ["nginx:8080", "ftp://nginx", "http://nginx/healthz"])
def test_an_address_that_cannot_be_is_refused(start_telemetry, url):
    with pytest.raises(AssertionError, match="GATEWAY_URL"):
        start_telemetry(GATEWAY_URL=url)
