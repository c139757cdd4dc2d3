"""The same is found in whatever keeps the traces: the embedded backend, and the real Jaeger where there is one."""

import base64
import time

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observability.story.apis import Jaeger, Loki
from observability.why.diagnose import diagnose
from observability.why.gather import Backends, gather
from tests.fixtures.embedded import running_embedded
from tests.fixtures.real import is_there, running_real
from tests.fixtures.services import eventually
from tests.why.world import AT, Fault, World, _As

KINDS = {"internal": 1, "server": 2, "client": 3}
FAULTS = [
    Fault(service="shop-c", name="decide", extra_ms=400, where=lambda about: about["currency"] == "EUR"),
    Fault(service="shop-a", name="GET /thing/{id}", kind="server", error="500", share=0.5),
]


def value(one):
    if isinstance(one, bool):
        return {"boolValue": one}
    return {"intValue": one} if isinstance(one, int) else {"stringValue": one}


def attributes(tags):
    return [{"key": tag["key"], "value": value(tag["value"])} for tag in tags]


def exported(trace, offset):
    """A trace of the made-up shop as OTLP."""
    found = []
    for span in trace["spans"]:
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        process = trace["processes"][span["processID"]]
        start = span["startTime"] + offset
        said = {
            "traceId": span["traceID"],
            "spanId": span["spanID"],
            "parentSpanId": span["references"][0]["spanID"] if span["references"] else "",
            "name": span["operationName"],
            "kind": KINDS[tags["span.kind"]],
            "startTimeUnixNano": start * 1000,
            "endTimeUnixNano": (start + span["duration"]) * 1000,
            "attributes": attributes(tag for tag in span["tags"] if tag["key"] not in {"span.kind", "error"}),
            "status": {"code": 2 if tags.get("error") else 0},
        }
        resource = [{"key": "service.name", "value": process["serviceName"]}, *process["tags"]]
        found.append({"resource": {"attributes": attributes(resource)}, "scopeSpans": [{"spans": [said]}]})
    for spans in found:
        [span] = spans["scopeSpans"][0]["spans"]
        for name in ("traceId", "spanId", "parentSpanId"):
            span[name] = _base64(span[name])
    return found


def _base64(text):
    """Bytes as protobuf's own JSON has them."""
    return base64.b64encode(bytes.fromhex(text)).decode()


def check(otlp, jaeger_root, loki=None):
    world = World(rate=2, faults=FAULTS)
    now = time.time()
    offset = int((now - AT) * 1e6)
    for begin in range(0, len(world.traces), 200):
        spans = [each for trace in world.traces[begin : begin + 200] for each in exported(trace, offset)]
        answer = otlp.send("traces", ParseDict({"resourceSpans": spans}, ExportTraceServiceRequest()))
        assert answer.status_code == 200, answer.text
    jaeger = Jaeger(jaeger_root, seconds=20)
    last = {"traceID": world.traces[-1]["traceID"]}
    eventually(lambda: jaeger.search(last), 30, pause=0.2)
    evidence = gather(Backends(jaeger, loki or _As(world, "loki"), _As(world, "prometheus")), now, None)
    assert evidence.missing == []
    answer = diagnose(evidence)
    found = {(cause.service, cause.operation): cause for cause in answer.causes}
    assert set(found) == {("shop-a", "GET /thing/{id}"), ("shop-c", "decide")}
    first = found["shop-c", "decide"].attributes[0]
    assert (first.key, first.value) == ("currency", "EUR")
    assert answer.pair


def test_it_is_found_in_the_embedded_backend(tmp_path):
    with running_embedded(tmp_path) as backend:
        check(backend.otlp, backend.jaeger.root, Loki(backend.loki.root))


if is_there("jaeger"):

    @pytest.mark.slow
    def test_it_is_found_in_jaeger(tmp_path):
        with running_real("jaeger", tmp_path) as real:
            check(real.otlp, real.api.root)
