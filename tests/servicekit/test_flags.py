"""Feature flags: what counts when, what a bad file does, forks and threads."""

import json
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.flags import LOOK_SECONDS, Flags
from tests.fixtures.services import eventually

PRODUCT_7 = {"if": [{"!=": [{"var": "product_id"}, 7]}, "none"]}
DELAYS = {"none": 0, "bad": 750, "worse": 2000}


class File:
    """A file of flags, replaced as a whole."""

    def __init__(self, folder):
        self.path = folder / "flags.json"

    def write(self, text):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    def flag(self, state="ENABLED", default="bad", variants=DELAYS, **more):
        flag = {"state": state, "variants": variants, "defaultVariant": default, **more}
        self.write(json.dumps({"flags": {"delay": flag}}))


@pytest.fixture
def file(tmp_path):
    made = File(tmp_path)
    made.flag("DISABLED")
    return made


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def flags(file, registry, request):
    return Flags(file.path, registry, request.node.name, {"service": "parcel-service"})


def failures(registry):
    return registry.get_sample_value("feature_flag_file_failures_total")


def test_without_a_file_each_flag_has_its_callers_default(registry):
    flags = Flags(None, registry, "none")
    assert (flags.value("delay", 5), flags.enabled("delay"), flags.any_enabled()) == (5, False, False)


def test_a_flag_that_is_disabled_or_unknown_has_its_callers_default(flags):
    assert flags.value("delay", 5) == 5
    assert flags.value("nobody-knows-it", default=True) is True
    assert not flags.any_enabled()


def test_a_change_counts_within_a_second(flags, file):
    for state, value in (("ENABLED", 750), ("DISABLED", 0), ("ENABLED", 750)):
        assert flags.value("delay", 0) != value
        file.flag(state)
        eventually(lambda value=value: flags.value("delay", 0) == value, 1)


@pytest.mark.parametrize(
    ("value", "default"), [(True, False), (750, 0), (0.3, 0.0), ("slow", "")], ids=["bool", "int", "float", "str"]
)
def test_a_value_is_of_the_type_of_its_default(flags, file, value, default):
    file.flag(variants={"bad": value})
    assert eventually(lambda: flags.value("delay", default), 1) == value


def test_a_value_of_another_type_is_the_callers_default(flags, file):
    file.flag(variants={"bad": "much"})
    eventually(lambda: flags.enabled("delay"), 1)
    assert flags.value("delay", 3) == 3


def test_targeting_looks_at_what_the_caller_and_the_service_say(flags, file):
    file.flag(targeting=PRODUCT_7)
    assert eventually(lambda: flags.value("delay", 0, product_id=7), 1) == 750
    assert flags.value("delay", 0, product_id=8) == 0
    assert flags.value("delay", 0) == 0
    file.flag(targeting={"if": [{"==": [{"var": "service"}, "parcel-service"]}, "worse", "none"]})
    eventually(lambda: flags.value("delay", 0) == 2000, 1)
    file.flag(targeting={"if": [{"==": [{"var": "targetingKey"}, "ada"]}, "worse", "none"]})
    eventually(lambda: flags.value("delay", 0, user="bob") == 0, 1)
    assert flags.value("delay", 0, user="ada") == 2000


def test_a_share_is_of_the_same_ones_each_time(flags, file):
    share = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "order"}]}, ["bad", 30], ["none", 70]]}
    file.flag(targeting=share)
    eventually(lambda: flags.enabled("delay"), 1)
    hit = [flags.value("delay", 0, order=str(n)) for n in range(300)]
    assert 50 < hit.count(750) < 130
    assert [flags.value("delay", 0, order=str(n)) for n in range(300)] == hit


BAD = {
    "half of it": '{"flags": {"delay": {"state": "ENA',
    "no flags": "{}",
    "a list": "[]",
    "a flag without a state": '{"flags": {"delay": {"variants": {"bad": 750}}}}',
    "a state that is none": '{"flags": {"delay": {"state": "ON", "variants": {"bad": 1}, "defaultVariant": "bad"}}}',
    "a flag that is no object": '{"flags": {"delay": 7}}',
    "a member that flagd does not know": '{"flags": {"delay": {"state": "ENABLED", "variants": {"a": 1}, "x": 1}}}',
    "no text": "\udcff",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_file_keeps_the_old_flags_and_is_told_once(flags, file, registry, text):
    file.flag()
    eventually(lambda: flags.value("delay", 0) == 750, 1)
    with capture_logs() as events:
        fresh = file.path.with_suffix(".new")
        fresh.write_bytes(text.encode("utf-8", "surrogateescape"))
        fresh.rename(file.path)
        eventually(lambda: flags.value("delay", 0) == 750 and failures(registry) == 1, 2)
        time.sleep(2 * LOOK_SECONDS)  # it is looked at again, and is the same
        assert flags.value("delay", 0) == 750
    [told] = [event for event in events if event["event"] == "flags.unreadable"]
    assert told["log_level"] == "error"
    assert told["error_type"]
    assert failures(registry) == 1
    file.flag("DISABLED")
    eventually(lambda: flags.value("delay", 0) == 0, 1)


def test_a_file_that_is_deleted_keeps_the_old_flags_and_is_told(flags, file, registry):
    file.flag()
    eventually(lambda: flags.value("delay", 0) == 750, 1)
    file.path.unlink()
    eventually(lambda: flags.value("delay", 0) == 750 and failures(registry) == 1, 2)
    file.flag("DISABLED")
    eventually(lambda: flags.value("delay", 0) == 0, 1)


def test_a_file_that_cannot_be_opened_for_a_moment_counts_when_it_can(flags, file, registry, monkeypatch):
    """As when the process has no file descriptor left: the file itself does not change any more."""
    flags.value("delay", 0)

    def full(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as exhausted:
        exhausted.setattr("pathlib.Path.read_text", full)
        file.flag()
        eventually(lambda: flags.value("delay", 0) == 0 and failures(registry) == 1, 2)
        time.sleep(2 * LOOK_SECONDS)
        assert flags.value("delay", 0) == 0
        assert failures(registry) == 1  # told once
    assert flags.value("delay", 0) == 750  # at once: whoever asks in vain does not keep others from asking


def test_a_file_that_comes_later_counts(tmp_path, registry):
    file = File(tmp_path)
    flags = Flags(file.path, registry, "later")
    assert flags.value("delay", 0) == 0
    assert failures(registry) == 1
    file.flag()
    eventually(lambda: flags.value("delay", 0) == 750, 1)


def test_a_change_is_told(flags, file):
    flags.value("delay", 0)
    with capture_logs() as events:
        file.flag()
        eventually(lambda: flags.value("delay", 0), 1)
    assert {"event": "flags.changed", "enabled": ["delay"], "log_level": "info"} in events


def test_an_evaluation_stands_in_the_span_at_hand(flags, file, spans):
    file.flag(targeting=PRODUCT_7)
    eventually(lambda: flags.enabled("delay"), 1)
    with spans.tracer.start_as_current_span("of the request"):
        flags.value("delay", 0, user="ada@example.org", product_id=7)
        flags.value("delay", 0, product_id=8)
        flags.value("not-enabled", 0)
    [span] = spans.finished()
    told = [(event.name, dict(event.attributes)) for event in span.events]
    about = {"feature_flag.key": "delay", "feature_flag.provider.name": "file"}
    assert told == [
        (
            "feature_flag.evaluation",
            {**about, "feature_flag.result.variant": "bad", "feature_flag.result.reason": "default"},
        ),
        (
            "feature_flag.evaluation",
            {**about, "feature_flag.result.variant": "none", "feature_flag.result.reason": "targeting_match"},
        ),
    ]
    assert "ada" not in str(told)


class Spans:
    def __init__(self):
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("test")

    def finished(self):
        return self._exporter.get_finished_spans()


@pytest.fixture
def spans():
    return Spans()


def test_eight_threads_see_whole_files_only(flags, file):
    """While the file is replaced again and again, no evaluation gives anything but one of its values."""
    file.flag()
    eventually(lambda: flags.value("delay", 0) == 750, 1)
    stopping, wrong, count = threading.Event(), [], []

    def evaluate():
        done = 0
        while not stopping.is_set():
            value = flags.value("delay", 0)
            if value not in {0, 750, 2000}:
                wrong.append(value)
            done += 1
        count.append(done)

    threads = [threading.Thread(target=evaluate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for n in range(100):
        file.flag(default=("bad", "worse")[n % 2])
        time.sleep(0.01)
    stopping.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(count) > 100


@pytest.mark.parametrize("arguments", ["", "--preload"])
def test_a_change_counts_in_a_worker_whose_parent_had_evaluated_before_it_forked(start, file, arguments):
    """With `--preload` gunicorn makes the application, which asks for a flag, before it forks."""
    server = start("tests.servicekit.flagged:create_app()", FLAGS_FILE=str(file.path), GUNICORN_CMD_ARGS=arguments)
    eventually(server.is_up, 60)
    assert server.client.get("/value").json() == {"value": 0}
    for state, value in (("ENABLED", 750), ("DISABLED", 0)):
        file.flag(state)
        eventually(lambda value=value: server.client.get("/value").json() == {"value": value}, 2)
