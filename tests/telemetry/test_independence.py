"""Telemetry never hurts the shop: whatever becomes of what takes it, requests go on as before; later the export too."""

import contextlib
import os
import signal
import socket
import statistics
import threading
import time
from dataclasses import dataclass, field

import psutil
import pytest
import requests

from local.supervision import Supervisor
from observability.contract import check_trace, load
from tests.fixtures.otlp import Collector
from tests.fixtures.services import eventually, new_session
from tests.fixtures.stack import LocalStack
from tests.telemetry.watch import SERVICES, WatchedLocally

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CLIENTS = 4
SECONDS = 3
GROWTH_BYTES = 40e6
"""What a service may grow by meanwhile: a full queue of spans is some 10 MB."""


@dataclass
class Load:
    """What clients met who did nothing but place orders and read them."""

    seconds: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def quantile(self, share):
        return statistics.quantiles(self.seconds, n=100)[round(share * 100) - 1]

    def is_as_fast_as(self, other):
        return (
            self.quantile(0.5) < 1.5 * other.quantile(0.5) + 0.02
            and self.quantile(0.95) < 2 * other.quantile(0.95) + 0.05
        )

    def __str__(self):
        times = ", ".join(f"p{share * 100:.0f} {self.quantile(share) * 1000:.0f} ms" for share in (0.5, 0.95))
        return f"{len(self.seconds)} requests, {times}, {len(self.failures)} failed"


def under_load(shop, token, seconds=SECONDS):
    """Place orders and read them, with a few clients in a closed loop."""
    load_, end = Load(), time.monotonic() + seconds

    def buy():
        with new_session() as session:
            session.headers["Authorization"] = f"Bearer {token}"
            while time.monotonic() < end:
                for method, path, body in (("POST", "/orders/", {"product_id": 1}), ("GET", "/orders/?limit=5", None)):
                    began = time.monotonic()
                    try:
                        answer = session.request(method, shop.gateway.root + path, json=body, timeout=20)
                        if answer.status_code not in {200, 201}:
                            load_.failures.append((method, answer.status_code, answer.text))
                    except requests.RequestException as error:
                        load_.failures.append((method, repr(error)))
                    load_.seconds.append(time.monotonic() - began)

    buyers = [threading.Thread(target=buy) for _ in range(CLIENTS)]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join()
    return load_


class Backend:
    """The embedded backend of a stack, and what can become of it."""

    NAME = "embedded-backend"

    def __init__(self, shop):
        self._shop = shop
        self._supervisor = Supervisor.find(shop.run_dir)

    def _state(self):
        return self._supervisor.states()[self.NAME]

    def stop(self):
        state = self._state()
        self._supervisor._call("supervisor.stopProcess", f"{state['group']}:{self.NAME}")

    def start(self):
        self._supervisor.start(self.NAME)

    @contextlib.contextmanager
    def gone(self):
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def killed(self):
        os.kill(self._state()["pid"], signal.SIGKILL)
        yield

    @contextlib.contextmanager
    def frozen(self):
        process = psutil.Process(self._state()["pid"])
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    @contextlib.contextmanager
    def replaced(self, **behaviour):
        with self.gone():
            impostor = Impostor(self._shop.ports["OTLP"], **behaviour)
            try:
                yield
            finally:
                impostor.stop()

    def failing(self):
        return self.replaced(status=500)

    def slow(self):
        return self.replaced(delay=1.0)

    def silent(self):
        return self.replaced(silent=True)


class Impostor(Collector):
    """Takes spans in the backend's place, badly."""

    def __init__(self, port, *, status=200, delay=0.0, silent=False):
        self._delay = delay
        self._connections = set()
        super().__init__(port)
        self.status = status
        if silent:
            self.frozen.set()

    def stop(self):
        super().stop()
        for connection in self._connections:  # a sender keeps its connection as long as somebody answers on it
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _take(self, request, body):
        self._connections.add(request.connection)
        time.sleep(self._delay)
        super()._take(request, body)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    running = LocalStack(tmp_path_factory.mktemp("independence"), LOGIN_RATE="200r/s", CLIENT_CONNECTIONS="10000")
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="module")
def token(shop):
    token = shop.login()
    under_load(shop, token, 2)  # what is slow the first time
    return token


def lost(shop):
    """The spans that were counted as lost so far, by all services."""
    total = 0
    for service in SERVICES:
        client = shop.service(service)
        for kind in ("timeout", "unavailable", "rejected", "_OTHER"):
            total += client.metric("otel_sdk_exporter_span_exported_total", error_type=kind)
        total += client.metric("otel_sdk_processor_span_processed_total", error_type="queue_full")
        client.session.close()
    return total


def memory(shop):
    found = {}
    for service in SERVICES:
        client = shop.service(service)
        found[service] = client.metric("process_resident_memory_bytes")
        client.session.close()
    return found


# With `slow`, a batch a second gets through: more than the shop makes.
@pytest.mark.parametrize("harm", ["gone", "killed", "frozen", "failing", "slow", "silent"])
def test_the_shop_does_not_notice_what_becomes_of_the_backend(shop, token, harm, capsys):
    watched, backend, contract = WatchedLocally(shop), Backend(shop), load()
    with contextlib.closing(watched):
        before, memory_before, lost_before = under_load(shop, token), memory(shop), lost(shop)
        with getattr(backend, harm)():
            meanwhile = under_load(shop, token)
            memory_after = memory(shop)
            if harm not in {"killed", "slow"}:
                # A backend that takes and says nothing is waited for: OTEL_EXPORTER_OTLP_TIMEOUT, 10 s.
                eventually(lambda: lost(shop) > lost_before, 15, pause=0.2)

        def complete():
            trace_id = watched.gateway.post("/orders/", {"product_id": 1}, token).headers["traceresponse"].split("-")[1]
            with contextlib.suppress(requests.RequestException, AssertionError):
                return eventually(lambda: not check_trace(contract, "order", watched.trace(trace_id)), 5, pause=0.1)

        eventually(complete, 30)
    with capsys.disabled():
        print(f"\n{harm}: before {before}; meanwhile {meanwhile}; {lost(shop) - lost_before:.0f} spans lost")
    assert not before.failures + meanwhile.failures
    assert meanwhile.is_as_fast_as(before)
    assert all(memory_after[service] - memory_before[service] < GROWTH_BYTES for service in SERVICES), memory_after
