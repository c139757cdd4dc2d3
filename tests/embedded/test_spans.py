"""The span store: what a search finds, what a second export changes, what deleting leaves."""

import itertools
import os
import random
import time

import pytest

from observability.embedded import spans as module
from observability.embedded import tags
from tests.conformance.payloads import Trace, event, order, request
from tests.fixtures.services import eventually

SECOND = 10**9


def test_a_search_gives_the_newest_first_and_no_more_than_asked_for(keep):
    kept = keep()
    traces = kept.orders(5)
    assert kept.find(limit=3) == [trace.id for trace in reversed(traces[2:])]


def test_an_export_that_is_tried_again_doubles_nothing(keep):
    kept = keep()
    trace = order()
    kept.add(trace)
    before = kept.rows()
    kept.add(trace)
    assert kept.rows() == before
    assert len(kept.spans.trace(trace.id).spans) == len(trace.spans)
    assert (kept.spans.counts.stored, kept.spans.counts.duplicates) == (12, 12)


def test_spans_that_come_later_join_their_trace(keep):
    kept = keep()
    trace = order()
    late = trace.spans.pop(0)
    kept.add(trace)
    trace.spans[:] = [late]
    kept.add(trace)
    assert len(kept.spans.trace(trace.id).spans) == 12
    assert kept.find("nginx") == [trace.id]
    assert kept.rows()["trace"] == 1


def test_traces_that_begin_in_the_same_nanosecond_are_two(keep):
    kept = keep()
    now = time.time_ns()
    first, second = order(1, start=now), order(2, start=now)
    kept.add(first, second)
    assert set(kept.find()) == {first.id, second.id}


def test_many_traces_that_begin_in_the_same_nanosecond_are_stored_soon(keep):
    kept = keep()
    now = time.time_ns()
    spans = []
    for _ in range(20_000):
        trace = Trace(start=now)
        trace.add("s", "same")
        spans += trace.spans
    message = request(spans, "s")
    began = time.monotonic()
    kept.spans.append(message.resource_spans, message.ByteSize())
    assert kept.database.flush(30)
    assert time.monotonic() - began < 15  # some 3 s; where each looks for the next free number, minutes
    assert kept.rows()["trace"] == 20_000


def test_a_clock_that_is_ahead_does_not_hide_a_trace(keep):
    kept = keep()
    trace = order(start=time.time_ns() + 3600 * SECOND)
    kept.add(trace)
    assert kept.find() == [trace.id]
    with kept.database.read() as connection:
        assert kept.spans.oldest(connection) <= time.time_ns()


def test_a_time_is_that_of_the_services_spans(keep):
    """The trace began an hour ago in another service; this service's span is of now."""
    kept = keep()
    now = time.time_ns()
    trace = Trace(start=now - 30 * SECOND)
    root = trace.add("early-service", "begin", ms=30_000)
    trace.add("late-service", "end", parent=root, at=30_000)
    kept.add(trace)
    recent = {"start": now - SECOND, "end": now + SECOND}
    assert kept.find("late-service", **recent) == [trace.id]
    assert kept.find("early-service", **recent) == []


def test_a_value_that_is_too_long_is_cut_and_its_neighbours_are_not(keep):
    kept = keep()
    trace = Trace()
    many = {f"key{number}": "v" * 100 for number in range(300)}
    trace.add("s", "large", tags={"long": "é" * 40_000, "list": ["x" * 50_000], "short": "s", **many})
    trace.add("s", "events", events=[event("e", trace.start, text="y" * 50_000) for _ in range(300)])
    kept.add(trace)
    large, events = sorted(kept.spans.trace(trace.id).spans, key=lambda span: span.name != "large")
    values = {key: value for key, _, value in tags.of_attributes(large.rest.attributes)}
    assert len(values) == module.MAX_ITEMS
    assert len(values["long"].encode()) <= module.MAX_VALUE
    assert values["long"].startswith("éé")
    assert "cut" in values["list"]
    assert values["short"] == "s"
    assert len(events.rest.events) == module.MAX_ITEMS


def test_a_huge_trace_is_answered_in_part_and_says_so(keep, monkeypatch):
    monkeypatch.setattr(module, "MAX_SPANS", 5)
    kept = keep()
    trace = order()
    kept.add(trace)
    found = kept.spans.trace(trace.id)
    assert (len(found.spans), found.is_cut) == (5, True)


def test_a_trace_of_large_spans_is_answered_in_part(keep, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRACE", 100_000)
    kept = keep()
    trace = Trace()
    for _ in range(10):
        trace.add("s", "large", tags={"text": "x" * 30_000})
    kept.add(trace)
    found = kept.spans.trace(trace.id)
    assert (len(found.spans), found.is_cut) == (3, True)
    monkeypatch.setattr(module, "MAX_TRACE", 10)
    assert len(kept.spans.trace(trace.id).spans) == 1


def test_what_is_too_old_is_deleted_with_all_that_leads_to_it(keep):
    kept = keep(max_age_seconds=2)
    kept.add(order(start=time.time_ns() - SECOND), order(2, start=time.time_ns() - SECOND))
    assert kept.rows()["trace"] == 2
    eventually(lambda: not any(kept.rows().values()))
    assert kept.spans.services() == []


def test_deleting_one_trace_leaves_the_others_whole(keep):
    kept = keep(max_age_seconds=60)
    old, new = order(1, start=time.time_ns() - 59 * SECOND), order(2)
    kept.add(new)
    expected = kept.rows()
    kept.add(old)
    eventually(lambda: kept.rows() == expected)
    assert kept.find(tags={"shop.order.id": "2"}) == [new.id]
    assert kept.find(tags={"shop.order.id": "1"}) == []


def test_a_huge_trace_is_deleted_bit_by_bit(keep):
    kept = keep(max_age_seconds=2)
    trace = Trace(start=time.time_ns() - SECOND)
    for number in range(1000):
        trace.add("s", f"span {number % 3}", tags={"number": number})
    kept.add(trace)
    eventually(lambda: not any(kept.rows().values()))


def test_the_file_stays_within_its_limit_and_keeps_the_newest(keep):
    limit = 1_500_000
    kept = keep(max_bytes=limit)
    number = itertools.count()
    for _ in range(15):
        kept.add(*[order(next(number)) for _ in range(40)])
    newest = order(next(number))
    kept.add(newest)
    eventually(lambda: kept.database.figures.used_bytes <= limit)
    eventually(lambda: kept.database.figures.file_bytes <= limit * 1.1)
    assert (kept.database._path).stat().st_size <= limit * 1.1
    assert kept.rows()["trace"] > 100
    assert kept.find(tags={"shop.order.id": "0"}) == []
    assert newest.id in kept.find(limit=1)


def test_calls_between_services_are_counted(keep):
    kept = keep()
    kept.orders(3)
    assert kept.spans.dependencies(0, module.FOREVER) == [
        ("nginx", "order-service", 3),
        ("order-service", "payment-service", 3),
        ("order-service", "product-service", 3),
    ]


VALUES = ["a", "b", 1, 2, True, 1.5]


def random_trace(choose, start):
    trace = Trace(start=start)
    spans = []
    for _ in range(choose.randrange(1, 8)):
        spans.append(
            trace.add(
                choose.choice(["one", "two"]),
                choose.choice(["x", "y", "z"]),
                choose.choice(["server", "client", ""]),
                parent=choose.choice(spans) if spans else b"",
                at=choose.uniform(0, 50),
                ms=choose.choice([0.5, 5, 5, 50, 500]),
                tags={key: choose.choice(VALUES) for key in choose.sample(["k", "l", "m"], 2)},
                events=[event("e", start, note=choose.choice(VALUES))] if choose.random() < 0.3 else [],
            )
        )
    return trace


def expected(traces, query):
    """What a search should find, by looking at every span."""
    found = []
    for trace in traces:
        spans = [span for service, _, span in trace.spans if service == query["service"]]
        named = [span for span in spans if query.get("operation", span.name) == span.name]
        said = {(key, tags.text(kind, value)) for span in spans for key, kind, value in tags.of_span(span, span.kind)}
        said |= {
            (key, tags.text(kind, value))
            for span in spans
            for one in span.events
            for key, kind, value in tags.of_event(one)
        }
        said |= {("service.namespace", "shop"), ("otel.scope.name", "shop")} if spans else set()
        low, high = query.get("min_duration", 0), query.get("max_duration", module.FOREVER)
        lasted = [span for span in named if low <= span.end_time_unix_nano - span.start_time_unix_nano <= high]
        if lasted and all(tag in said for tag in query.get("tags", {}).items()):
            found.append(trace.id)
    return set(found)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_finds_what_looking_at_every_span_finds(keep, seed):
    choose = random.Random(seed)
    kept = keep()
    begin = time.time_ns() - 3600 * SECOND
    traces = [random_trace(choose, begin + number * SECOND) for number in range(120)]
    kept.add(*traces)
    hits = 0
    for _ in range(150):
        query = {"service": choose.choice(["one", "two", "three"])}
        if choose.random() < 0.4:
            query["operation"] = choose.choice(["x", "y", "z", "no"])
        if choose.random() < 0.6:
            keys = choose.sample(["k", "l", "m", "note", "span.kind", "service.namespace"], choose.randrange(1, 3))
            values = ["a", "1", "true", "1.5", "server", "shop"]
            query["tags"] = {key: choose.choice(values) for key in keys}
        if choose.random() < 0.4:
            query["min_duration"] = choose.choice([1, 4, 40, 400]) * 10**6
        if choose.random() < 0.4:
            query["max_duration"] = query.get("min_duration", 0) + choose.choice([1, 60]) * 10**6
        found = kept.find(**query, limit=1000)
        assert len(found) == len(set(found))
        assert set(found) == expected(traces, query), query
        hits += bool(found)
    assert hits > 20


def test_ids_are_compared_as_bytes_whatever_they_hold(keep):
    kept = keep()
    trace = Trace(id=b"\x00" * 15 + b"\x01")
    trace.add("s", "n")
    kept.add(trace)
    assert kept.spans.trace(trace.id).id == trace.id
    assert kept.spans.trace(os.urandom(16)) is None


def test_a_client_and_a_server_that_share_an_id_are_one_call(keep):
    kept, trace = keep(), Trace()
    client = trace.add("one", "call", "client")
    trace.add("two", "serve", "server", at=0.1)
    trace.spans[-1][2].span_id = client
    trace.add("three", "serve", "server", parent=client)
    kept.add(trace)
    assert kept.spans.dependencies(0, module.FOREVER) == [("one", "two", 1), ("two", "three", 1)]


def test_many_spans_of_one_id_and_many_children_are_counted_soon_and_each_child_once(keep):
    kept, trace = keep(), Trace()
    shared = trace.add("one", "call", "internal")
    for number in range(3000):
        trace.add("one", f"call {number}", "internal", at=number + 1)
        trace.spans[-1][2].span_id = shared
        trace.add("two", f"serve {number}", "server", parent=shared)
    kept.add(trace)
    assert kept.spans.dependencies(0, module.FOREVER) == [("one", "two", 3000)]


def test_a_search_by_tags_looks_at_the_origins_once_and_not_for_each_candidate(keep, monkeypatch):
    kept, looks = keep(), []
    traces = kept.orders(20)
    of_resource = tags.of_resource
    monkeypatch.setattr(tags, "of_resource", lambda resource: looks.append(resource) or of_resource(resource))
    start = min(trace.spans[0][2].start_time_unix_nano for trace in traces) + 5 * 10**6
    assert kept.find(tags={"shop.order.status": "PAID"}, start=start, limit=20)
    assert len(looks) <= 2  # origins of the service
