"""The histogram exposes what prometheus_client's own would."""

import threading
import time

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceFlags
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from servicekit.telemetry.histogram import Histogram
from servicekit.telemetry.metrics import SECONDS

NAME, HELP, LABELS = "work_duration_seconds", 'How "long"\nit took.', ["route", "status"]
label = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
observations = st.lists(
    st.tuples(
        st.tuples(st.sampled_from(["/a", "/b"]) | label, st.sampled_from(["200", "503"])),
        st.sampled_from(SECONDS) | st.floats(0, 20),
        st.none() | st.integers(1, 2**64 - 1),
    ),
    max_size=30,
)


def _context(number):
    return number and SpanContext(number << 32, number, is_remote=False, trace_flags=TraceFlags(1))


@given(observations)
def test_the_exposition_is_the_same_in_both_formats(seen):
    disable_created_metrics()
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    cheap = Histogram(NAME, HELP, LABELS, SECONDS, ours)
    usual = prometheus_client.Histogram(NAME, HELP, LABELS, buckets=SECONDS, registry=theirs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1_800_000_000.125)
        for labels, value, number in seen:
            cheap.observe(labels, value, _context(number))
            exemplar = number and {"trace_id": f"{number << 32:032x}", "span_id": f"{number:016x}"}
            usual.labels(*labels).observe(value, exemplar)
    assert generate_latest(ours) == generate_latest(theirs)
    for version in ("1.0.0", "2.0.0"):
        assert generate_openmetrics(ours, version=version) == generate_openmetrics(theirs, version=version)


def test_without_labels_it_is_there_from_the_start_and_with_them_when_it_is_begun():
    registry = CollectorRegistry()
    Histogram("a_seconds", "A.", [], SECONDS, registry)
    labelled = Histogram("b_seconds", "B.", ["route"], SECONDS, registry)
    assert registry.get_sample_value("a_seconds_count") == 0
    assert registry.get_sample_value("b_seconds_count", {"route": "/"}) is None
    labelled.begin(("/",))
    assert registry.get_sample_value("b_seconds_count", {"route": "/"}) == 0
    labelled.observe(("/",), 1.0)
    labelled.begin(("/",))
    assert registry.get_sample_value("b_seconds_count", {"route": "/"}) == 1


def test_a_name_that_is_taken_is_refused():
    registry = CollectorRegistry()
    Histogram(NAME, HELP, LABELS, SECONDS, registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        prometheus_client.Counter(f"{NAME}_count", "Another.", registry=registry)


class Slow(float):
    """A number that lets other threads in just when it is added."""

    def __radd__(self, other):
        time.sleep(0)
        return other + float(self)


def test_threads_that_observe_at_once_lose_nothing_and_what_is_read_meanwhile_adds_up():
    registry = CollectorRegistry()
    histogram = Histogram(NAME, HELP, ["thread"], SECONDS, registry)
    rounds, threads = 500, 4

    def work(number):
        for _ in range(rounds):
            histogram.observe(("shared",), Slow(0.25))
            histogram.observe((str(number),), Slow(0.25))

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    while any(thread.is_alive() for thread in running):
        (family,) = registry.collect()
        shared = {sample.name: sample.value for sample in family.samples if sample.labels["thread"] == "shared"}
        assert shared.get(f"{NAME}_count", 0) == 4 * shared.get(f"{NAME}_sum", 0)
    value = registry.get_sample_value
    assert value(f"{NAME}_sum", {"thread": "shared"}) == rounds * threads / 4
    assert value(f"{NAME}_bucket", {"thread": "shared", "le": "0.1"}) == 0
    assert value(f"{NAME}_bucket", {"thread": "shared", "le": "0.25"}) == rounds * threads
    for number in range(threads):
        assert value(f"{NAME}_count", {"thread": str(number)}) == rounds
