"""Traces and questions that are not tidy: what Jaeger 2.13 makes of them, and never a 500."""

import json
import time

import pytest

from tests.conformance.payloads import Trace

SECOND = 10**9

# --- Jaeger: long traces ---


@pytest.fixture
def long_traces(keep):
    """A store with a trace that began 20 minutes ago and goes on, sent in either order, and short ones beside it."""

    def start(*, old_first):
        kept, now = keep(), time.time_ns()
        long = Trace(start=now - 1200 * SECOND)
        root = long.add("s", "job", ms=1_199_000, tags={"t": "old"})
        long.add("s", "step", parent=root, at=1_195_000, tags={"t": "new"})
        for one in long.spans if old_first else reversed(long.spans):
            part = Trace(id=long.id)
            part.spans.append(one)
            kept.add(part)
        short = Trace(start=now - 60 * SECOND)
        short.add("s", "short")
        early = Trace(start=now - 300 * SECOND)
        early.add("s", "short", ms=1000)
        kept.add(short, early)
        return kept, now, long, short, early

    return start


@pytest.mark.parametrize("old_first", [True, False])
def test_a_long_trace_is_found_by_when_each_of_its_spans_began(long_traces, old_first):
    kept, now, long, short, early = long_traces(old_first=old_first)
    recent = {"start": now - 600 * SECOND, "end": now + SECOND}
    past = {"start": now - 1500 * SECOND, "end": now - 600 * SECOND}
    between = {"start": now - 1100 * SECOND, "end": now - 400 * SECOND}
    newest_first = [long.id, short.id, early.id]
    assert kept.find("s") == kept.find("s", **recent) == newest_first
    assert kept.find("s", **recent, limit=1) == kept.find("s", **past) == [long.id]
    assert kept.find("s", **between) == []
    assert kept.find("s", **recent, operation="step") == kept.find("s", **recent, tags={"t": "new"}) == [long.id]
    assert kept.find("s", **recent, operation="job") == kept.find("s", **recent, tags={"t": "old"}) == []
    assert kept.find("s", **past, operation="job", tags={"t": "old", "service.namespace": "shop"}) == [long.id]
    # The duration is asked of any of the service's spans, as in Jaeger.
    assert kept.find("s", **recent, min_duration=900 * SECOND) == [long.id]
    assert kept.find("s", **recent, min_duration=900 * SECOND, max_duration=2000 * SECOND) == [long.id]
    assert kept.find("s", **recent, min_duration=2000 * SECOND) == []


def test_a_long_trace_is_deleted_with_all_that_leads_to_it(long_traces):
    kept, *_ = long_traces(old_first=True)
    kept.database.write(lambda connection: [kept.spans.delete_oldest(connection, time.time_ns()) for _ in range(5)])
    assert kept.database.flush()
    with kept.database.read() as connection:
        assert connection.execute("SELECT count(*) FROM stretched").fetchone() == (0,)
    assert not any(kept.rows().values())


def test_the_calls_of_a_long_trace_count_whenever_one_of_its_spans_began(keep):
    kept, now = keep(), time.time_ns()
    trace = Trace(start=now - 1200 * SECOND)
    root = trace.add("one", "call", "client", ms=1_199_000)
    trace.add("two", "serve", "server", parent=root, at=1_190_000)
    kept.add(trace)
    assert kept.spans.dependencies(now - 60 * SECOND, now) == [("one", "two", 1)]
    assert kept.spans.dependencies(now - 600 * SECOND, now - 500 * SECOND) == [("one", "two", 1)]
    assert kept.spans.dependencies(now - 9000 * SECOND, now - 8000 * SECOND) == []


# --- Jaeger: absurd parameters ---

ABSURD = [
    *(("minDuration", text) for text in ("9" * 400 + "s", "9999999999999h", "2562048h", "1e400s", "1e3s", "NaN")),
    *(("maxDuration", text) for text in ("9" * 400 + "s", "9223372036854775808ns", ".s", "1d", " 5ms", "5MS", "1")),
    *(("start", text) for text in ("9" * 400, "9223372036854775808", "1e6", "0x10", "\uff11", " 1", "1.5")),
    *(("end", text) for text in ("9" * 5000, "-9223372036854775809", "NaN")),
    *(("limit", text) for text in ("9" * 400, "-1", "1e2", "1501")),
    *(("tags", text) for text in ("[" * 3000, '{"a":1}', "[]", '"x"', '{"a":{}}', '{"a":"\t"}', "{", '{"a":true}')),
    *(("traceID", text) for text in ("1" * 400, "zz", "-1", "\u0661", "0x1")),
]


@pytest.mark.parametrize(("name", "text"), ABSURD, ids=[f"{name} {text[:20]}" for name, text in ABSURD])
def test_an_absurd_parameter_is_the_askers_mistake(embedded, name, text):
    answer = embedded.jaeger.get("/api/traces", params={"service": "s", name: text})
    assert answer.status_code == 400
    body = answer.json()
    assert body["data"] is None
    assert [error["code"] for error in body["errors"]] == [400]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minDuration", "2562047h"),
        ("minDuration", "9223372036854775807ns"),
        ("minDuration", "-1s"),
        ("maxDuration", "-1s"),
        ("minDuration", "1h1h"),
        ("minDuration", "1.s"),
        ("start", "-9223372036854775808"),
        ("start", "+5"),
        ("end", "9223372036854775807"),
        ("tags", '{"a":null}'),
        ("tags", '{"a":"\\ud800"}'),
    ],
)
def test_a_strange_parameter_is_answered(embedded, name, text):
    answer = embedded.jaeger.get("/api/traces", params={"service": "none", name: text})
    assert (answer.status_code, answer.json()["data"]) == (200, [])


@pytest.mark.parametrize("text", ["9" * 30, "1.5", "x"])
def test_absurd_times_of_dependencies_are_the_askers_mistake(embedded, text):
    for name in ("endTs", "lookback"):
        assert embedded.jaeger.get("/api/dependencies", params={name: text}).status_code == 400


def test_a_mistake_of_ours_is_an_error_in_jaegers_form(backend, monkeypatch):
    monkeypatch.setattr(backend.spans, "services", lambda: 1 / 0)
    answer = backend.apps()["jaeger_port"].test_client().get("/api/services")
    assert answer.status_code == 500
    assert json.loads(answer.text)["errors"][0]["code"] == 500
    assert "division" not in answer.text


# --- Jaeger: spans that share an id ---

ROOT, SHARED, LEAF = (number.to_bytes(8) for number in (0xAA00, 0xBB00, 0xCC00))


def shown(backend, *spans):
    """The trace as it is answered: of each span, `name: (id, parent)`."""
    trace = Trace()
    for number, (name, kind, own, parent) in enumerate(spans):
        trace.add("s", name, kind, parent=parent, at=number, ms=90 - number)
        trace.spans[-1][2].span_id = own
    backend.spans.append(trace.requests()[0].resource_spans, 0)
    assert backend.database.flush()
    found = backend.apps()["jaeger_port"].test_client().get(f"/api/traces/{trace.hex}").json["data"][0]["spans"]
    numbers = [(span, [int(reference["spanID"], 16) for reference in span["references"]]) for span in found]
    return {span["operationName"]: (int(span["spanID"], 16), *parents) for span, parents in numbers}, found


def test_a_server_that_shares_the_clients_id_gets_its_own_below_it(backend):
    call, serve, leaf = ("call", "client", SHARED, ROOT), ("serve", "server", SHARED, ROOT), ("leaf", "", LEAF, SHARED)
    for spans in ((call, serve, leaf), (serve, call, leaf)):
        found, _ = shown(backend, ("root", "", ROOT, b""), *spans)
        assert found == {"root": (0xAA00,), "call": (0xBB00, 0xAA00), "serve": (1, 0xBB00), "leaf": (0xCC00, 1)}


def test_a_new_id_is_one_that_no_span_has(backend):
    one = (1).to_bytes(8)
    found, _ = shown(backend, ("one", "", one, b""), ("call", "client", SHARED, one), ("serve", "server", SHARED, one))
    assert found == {"one": (1,), "call": (0xBB00, 1), "serve": (2, 0xBB00)}


def test_of_two_servers_with_the_clients_id_the_last_has_what_is_below(backend):
    found, _ = shown(
        backend,
        ("call", "client", SHARED, b""),
        ("first", "server", SHARED, b""),
        ("last", "server", SHARED, b""),
        ("leaf", "", LEAF, SHARED),
    )
    assert found == {"call": (0xBB00,), "first": (1, 2), "last": (2, 0xBB00), "leaf": (0xCC00, 2)}


@pytest.mark.parametrize("kinds", [("", ""), ("server", ""), ("producer", "consumer"), ("client", "client")])
def test_other_spans_that_share_an_id_keep_it_and_are_warned_of(backend, kinds):
    found, spans = shown(
        backend, ("a", kinds[0], SHARED, b""), ("b", kinds[1], SHARED, b""), ("leaf", "", LEAF, SHARED)
    )
    assert found == {"a": (0xBB00,), "b": (0xBB00,), "leaf": (0xCC00, 0xBB00)}
    assert [span["warnings"] for span in spans] == [None, ["duplicate span IDs; skipping clock skew adjustment"], None]
