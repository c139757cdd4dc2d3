"""Jaeger's API at its edges: long traces, shared ids, text and numbers that are not clean. Both are sent the same."""

import json
import random

import pytest

from tests.conformance import payloads
from tests.conformance.recordings import AGE, SECOND, Recording
from tests.embedded.hostile import attribute, body, span, traces
from tests.fixtures.services import eventually

pytestmark = pytest.mark.xdist_group("conformance")

RECORDING = Recording("jaeger", "edges")
NOW = RECORDING.start + AGE
HALF = "\\ud83d"  # of a surrogate pair


@pytest.fixture
def both(embedded, real_jaeger):
    """Both backends: where each takes OTLP, and its API."""
    return [(embedded.otlp, embedded.jaeger), (real_jaeger.otlp, real_jaeger.api)]


def timed(name, ids, begin=NOW - SECOND, end=NOW - SECOND + payloads.MS, **fields):
    """A span whose times are of the recording and whose ids are the same each time."""
    own = {"traceId": ids.randbytes(16).hex(), "spanId": ids.randbytes(8).hex(), **fields}
    return span(name, **{"startTimeUnixNano": str(begin), "endTimeUnixNano": str(end), **own})


def send_json(both, request, **parts):
    """Send the same; the answers' status."""
    data, headers = body(request, **parts), {"Content-Type": "application/json"}
    return [otlp("POST", "/v1/traces", data=data, headers=headers).status_code for otlp, _ in both]


def the_spans(both, trace_id, count):
    """The spans of a trace in both, by what has to be equal, once all are there."""

    def found(api):
        answer = api.get(f"/api/traces/{trace_id}")
        spans = answer.json()["data"][0]["spans"] if answer.status_code == 200 else []
        return sorted(spans, key=lambda one: (one["startTime"], one["spanID"])) if len(spans) == count else None

    keys = ("operationName", "spanID", "references", "duration", "warnings", "tags")
    return [[{key: one[key] for key in keys} for one in eventually(lambda api=api: found(api))] for _, api in both]


@pytest.mark.parametrize("old_first", [True, False])
def test_a_long_trace_is_found_by_when_each_of_its_spans_began(both, old_first):
    now, service = NOW, f"long-{old_first}"
    ids = random.Random(service)
    long = payloads.Trace(start=now - 1200 * SECOND, ids=ids)
    short = payloads.Trace(start=now - 60 * SECOND, ids=ids)
    root = long.add(service, "job", ms=1_199_000, tags={"t": "old"})
    long.add(service, "step", parent=root, at=1_195_000, tags={"t": "new"})
    short.add(service, "short")
    for one in [*(long.spans if old_first else reversed(long.spans)), short.spans[0]]:
        for otlp, _ in both:
            assert otlp.send("traces", payloads.request([one], service)).status_code == 200
    the_spans(both, long.hex, 2)
    the_spans(both, short.hex, 1)

    def ids(api, **params):
        answer = api.get("/api/traces", params={"service": service, **params})
        return [trace["traceID"] for trace in answer.json()["data"]]

    recent = {"start": (now - 600 * SECOND) // 1000, "end": (now + SECOND) // 1000}
    past = {"start": (now - 1500 * SECOND) // 1000, "end": (now - 600 * SECOND) // 1000}
    for params, expected in (
        ({}, [long.hex, short.hex]),
        (recent, [long.hex, short.hex]),
        ({**recent, "limit": 1}, [long.hex]),
        (past, [long.hex]),
        ({**recent, "tag": "t:new"}, [long.hex]),
        ({**recent, "tag": "t:old"}, []),
        ({**recent, "operation": "step"}, [long.hex]),
        ({**recent, "operation": "job"}, []),
        ({**recent, "minDuration": "15m"}, [long.hex]),
    ):
        assert [ids(api, **params) for _, api in both] == [expected, expected], params


ROOT, SHARED, LEAF = "aa".zfill(16), "bb".zfill(16), "cc".zfill(16)
CLIENT, SERVER = 3, 2


@pytest.mark.parametrize(
    "kinds",
    [
        (CLIENT, SERVER),
        (SERVER, CLIENT),
        (CLIENT, SERVER, SERVER),
        (CLIENT, CLIENT, SERVER),
        (1, 1),
        (SERVER, 1),
        (4, 5),
    ],
    ids=str,
)
def test_spans_that_share_an_id_are_shown_alike(both, kinds):
    ids, now = random.Random(str(kinds)), NOW - SECOND
    trace_id = ids.randbytes(16).hex()

    def one(name, own, parent, kind, at):
        begin, end = now + at * payloads.MS, now + (100 - at) * payloads.MS
        return timed(name, ids, begin, end, traceId=trace_id, spanId=own, parentSpanId=parent, kind=kind)

    spans = [one("root", ROOT, "", 1, 0), one("leaf", LEAF, SHARED, 1, 20)]
    spans += [one(f"shared {number}", SHARED, ROOT, kind, 1 + number) for number, kind in enumerate(kinds)]
    assert send_json(both, traces(*spans)) == [200, 200]
    ours, real = the_spans(both, trace_id, len(spans))
    # Which of two equals Jaeger warns of is by chance, and so is which of two servers has what is below.
    warnings = [sorted(str(one.pop("warnings")) for one in found) for found in (ours, real)]
    assert warnings[0] == warnings[1]
    assert ours == real


DOUBLES = [{"doubleValue": one} for one in (1, 2.5, 1e20, 1e21, 1e-6, 1e-7, -0.0)]
ODD = {
    "half a pair in a name": {"name": "CUT"},
    "half a pair in a key": {"attributes": [attribute("xCUT", stringValue="v")]},
    "half a pair in a value": {"attributes": [attribute("k", stringValue="CUTx")]},
    "doubles in a list": {"attributes": [attribute("k", arrayValue={"values": DOUBLES})]},
    "no number in a list": {"attributes": [attribute("k", arrayValue={"values": [{"doubleValue": "NaN"}]})]},
    "a map": {"attributes": [attribute("k", kvlistValue={"values": [attribute("b", doubleValue=2), attribute("a")]})]},
    "an address": {"attributes": [attribute("ip", intValue="2130706433"), attribute("peer.ipv4", doubleValue=3)]},
    "two values": {"attributes": [attribute("k", stringValue="a", intValue=5)]},
    "names of enums": {"kind": "SPAN_KIND_SERVER", "status": {"code": "STATUS_CODE_ERROR"}},
    "an end beyond all": {"endTimeUnixNano": str(2**64 - 1)},
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_span_is_shown_alike(both, case):
    ids = random.Random(case)
    odd = timed("odd", ids) | ODD[case]
    assert send_json(both, traces(timed("healthy", ids), odd), CUT=HALF) == [200, 200]
    ours, real = the_spans(both, odd["traceId"], 1)
    assert ours == real


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("minDuration", "9" * 400 + "s", 400),
        ("minDuration", "2562048h", 400),
        ("minDuration", "2562047h", 200),
        ("maxDuration", "-1s", 200),
        ("start", "9" * 400, 400),
        ("end", "9223372036854775808", 400),
        ("limit", "9" * 20, 400),
        ("tags", "[" * 3000, 400),
        ("tags", '{"a":"\\ud800"}', 200),
        ("tags", '{"a":null}', 200),
        ("traceID", "\u0661", 400),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_absurd_parameter_is_answered_alike(both, name, text, status):
    answers = [api.get("/api/traces", params={"service": "none", name: text}) for _, api in both]
    assert [answer.status_code for answer in answers] == [status, status]
    shapes = [{key: type(value) for key, value in json.loads(answer.text).items()} for answer in answers]
    assert shapes[0] == shapes[1]
