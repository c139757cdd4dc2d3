"""The faults that any service may have, on the wire of the smallest of them."""

import time

import pytest
from structlog.testing import capture_logs

import shop.faults
from product_service.app import create_app
from product_service.settings import ProductSettings
from scenarios import flags
from tests.fixtures.services import eventually, quickest, task

PATH = "/products/1"


@pytest.fixture
def app(fault):
    return create_app(ProductSettings(flags_file=fault.path))


@pytest.fixture
def client(app, serve):
    return serve(app)


@pytest.fixture
def meant(fault):
    """Switch a fault for product-service, whichever service it is meant for."""

    def switch(name, state="on"):
        text = fault.path.read_text()
        fault(name, state)
        changed = fault.path.read_text()
        assert text != changed
        fresh = fault.path.with_suffix(".new")
        fresh.write_text(changed.replace('"order-service"', '"product-service"'))
        fresh.rename(fault.path)

    return switch


def rounds(app):
    """Have the background task do what it does four times a second."""
    task(app, "faults").run_once()


def test_all_faults_are_off_by_default():
    assert {flag.state for flag in flags.read(flags.DEFAULT)} == {flags.OFF}


def test_with_all_off_nothing_is_evaluated(client, monkeypatch):
    def evaluated(*_, **__):
        raise AssertionError("a flag was evaluated")

    monkeypatch.setattr("servicekit.flags.EvaluationContext", evaluated)
    assert client.get(PATH).status_code == 200


def test_each_flag_is_known_to_some_service():
    from auth_service import faults as of_auth  # noqa: PLC0415
    from order_service import faults as of_order  # noqa: PLC0415
    from payment_service import faults as of_payment  # noqa: PLC0415
    from product_service import faults as of_product  # noqa: PLC0415

    modules = (of_auth, of_order, of_payment, of_product)
    known = {name for module in modules for name in module.FLAGS} | set(shop.faults._ANY_SERVICE)
    assert known == {flag.name for flag in flags.read(flags.DEFAULT)}


def test_a_version_that_is_not_the_slow_one_is_not_slow(client, fault):
    fault("release-slow")
    eventually(lambda: client.metric("simulated_faults", fault="release-slow"), 2)
    assert quickest(lambda: client.get(PATH)) < 0.5


def test_the_slow_version_is_slow(fault, serve, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.1.0")
    client = serve(create_app(ProductSettings(flags_file=fault.path)))
    fault("release-slow")
    eventually(lambda: client.get(PATH).elapsed.total_seconds() >= 0.6, 5)
    assert quickest(lambda: client.get("/healthz")) < 0.5


def test_the_log_is_flooded(client, meant):
    meant("log-flood")
    with capture_logs() as events:
        eventually(lambda: client.get(PATH) and any(event["event"] == "item.looked_at" for event in events), 3)
    assert [event["item"] for event in events if event["event"] == "item.looked_at"][:200] == list(range(200))


def test_labels_explode(client, meant):
    meant("label-explosion")
    eventually(lambda: client.get(PATH) and "requests_by_number_total{" in client.get("/metrics").text, 3)
    assert client.get("/metrics").text.count("requests_by_number_total{") >= 300


def test_each_request_computes_for_a_while(client, fault):
    fault("cpu-burn", "strong")
    eventually(lambda: client.metric("simulated_faults", fault="cpu-burn"), 3)
    before = client.metric("process_cpu_seconds_total")
    for _ in range(3):
        assert client.get(PATH).elapsed.total_seconds() >= 0.12
    assert client.metric("process_cpu_seconds_total") - before >= 0.36


def test_memory_leaks_until_the_process_is_killed_for_it(app, client, fault, monkeypatch):
    killed = []
    monkeypatch.setattr("os.kill", lambda _pid, signal: killed.append(signal))
    monkeypatch.setattr(shop.faults, "_LEAK_LIMIT", 3 * 1024 * 1024)
    fault("memory-leak")
    eventually(lambda: client.get(PATH) and (rounds(app) or killed), 5)
    assert killed[0] == 9
    fault("memory-leak", "off")
    eventually(lambda: rounds(app) or not task(app, "faults")._work.__self__._leaked, 2)


def test_files_leak_until_there_are_none_and_are_given_back(app, client, meant, fault, monkeypatch):
    limits = [(1024, 4096)]
    monkeypatch.setattr(shop.faults.resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(shop.faults.resource, "setrlimit", lambda _what, limit: limits.append(limit))
    faults = task(app, "faults")._work.__self__
    faults._files_limit = limits[0]
    meant("files-leak", "strong")
    eventually(lambda: rounds(app) or len(limits) == 2, 3)
    assert limits[1][0] < 1024  # so many that it does not take hours
    eventually(lambda: client.get(PATH) and len(faults._files) >= 10, 5)
    rounds(app)
    assert limits[-2:] == [(limits[1][0] + 8, 4096), limits[1]]  # room to read the flags, and none afterwards
    fault("files-leak", "off")
    eventually(lambda: rounds(app) or limits[-1] == limits[0], 3)
    assert not faults._files


def test_a_request_that_cannot_open_a_file_fails(client, meant, fault, monkeypatch):
    def full(*_):
        raise OSError(24, "Too many open files")

    meant("files-leak")
    monkeypatch.setattr(shop.faults.Faults, "_limit_files", lambda _self: None)
    with monkeypatch.context() as leaking, capture_logs() as events:
        leaking.setattr(shop.faults.os, "open", full)
        eventually(lambda: client.get(PATH).status_code == 500, 3)
    assert "request.failed" in {event["event"] for event in events}
    fault("files-leak", "off")
    eventually(lambda: client.get(PATH).status_code == 200, 3)


def test_the_collector_of_garbage_has_much_to_look_at(app, meant, fault, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: None)
    meant("gc-pauses")
    cycles = task(app, "faults")._work.__self__._cycles
    eventually(lambda: rounds(app) or len(cycles) == 1_200_000, 20)
    fault("gc-pauses", "off")
    eventually(lambda: rounds(app) or not cycles, 5)


def test_a_clock_is_off_and_right_again_and_durations_are_right_all_the_time(exported, app, client, fault):
    def seconds_ahead():
        client.get(PATH)
        span = exported.settled()[-1]
        assert 0 <= span.end_ns - span.start_ns < 5e9
        return (span.start_ns - time.time_ns()) / 1e9

    fault("clock-off")
    eventually(lambda: rounds(app) or seconds_ahead() > 80, 10)
    fault("clock-off", "off")
    eventually(lambda: rounds(app) or seconds_ahead() < 10, 10)


def test_a_request_that_hangs_goes_on_when_the_fault_is_off(client, meant, fault):
    import threading  # noqa: PLC0415

    meant("threads-stuck")
    eventually(lambda: client.metric("simulated_faults", fault="threads-stuck"), 2)
    answers = []
    asking = [
        threading.Thread(target=lambda: answers.append(client.get(PATH).elapsed.total_seconds())) for _ in range(20)
    ]
    for thread in asking:
        thread.start()
    eventually(lambda: len(answers) >= 8 and client.metric("http_server_active_requests") >= 2, 10)
    fault("threads-stuck", "off")
    for thread in asking:
        thread.join(10)
    assert len(answers) == 20


def test_the_interpreter_stops_for_a_third_of_a_second_however_fast_a_collection_is(app, meant, monkeypatch):
    collections = []
    monkeypatch.setattr("gc.collect", lambda: collections.append(True))
    meant("gc-pauses")
    eventually(lambda: rounds(app) or collections, 20)
    began = time.monotonic()
    rounds(app)  # the first one made the objects, too, which takes time of its own
    assert time.monotonic() - began > 0.3


def test_spans_are_flooded(app, client, meant):
    faults = task(app, "faults")._work.__self__
    made = []

    class Tracer:
        def span(self, name):
            from servicekit.telemetry.tracing import NOTHING  # noqa: PLC0415

            made.append(name)
            return NOTHING

    faults._tracer = Tracer()
    meant("span-flood")
    eventually(lambda: client.get(PATH) and made, 3)
    assert set(made) == {"look at an item"}
    assert len(made) >= 2500
