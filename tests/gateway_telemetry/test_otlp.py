"""The access log from a Collector, by OTLP/HTTP."""

import gzip

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from observability.gateway.app import AT_ONCE, MAX_BYTES, create_app
from observability.gateway.line import Vocabulary
from observability.gateway.metrics import GatewayMetrics
from observability.gateway.settings import ROUTES
from tests.fixtures.gateway_telemetry import access_line

PROTOBUF = "application/x-protobuf"


def export(*lines, **headers):
    """A request as the Collector sends it."""
    message = ExportLogsServiceRequest()
    for line in lines:
        record = message.resource_logs.add().scope_logs.add().log_records.add()
        record.body.string_value = line
    return {"data": message.SerializeToString(), "headers": {"Content-Type": PROTOBUF, **headers}}


@pytest.fixture
def got():
    """The lines that were taken."""
    return []


@pytest.fixture
def client(got):
    metrics = GatewayMetrics(Vocabulary.of(ROUTES))
    return create_app(metrics.registry, lambda: True, got.extend).test_client()


@pytest.mark.parametrize("packed", [False, True])
def test_each_records_body_is_a_line(client, got, packed):
    sent = export("a", "b")
    if packed:
        sent["data"] = gzip.compress(sent["data"])
        sent["headers"]["Content-Encoding"] = "gzip"
    answer = client.post("/v1/logs", **sent)
    assert (answer.status_code, answer.mimetype) == (200, PROTOBUF)
    assert ExportLogsServiceResponse.FromString(answer.data) == ExportLogsServiceResponse()
    assert got == [b"a", b"b"]


def test_a_line_that_is_no_text_costs_no_other(client, got):
    sent = export("a", "torn")
    sent["data"] = sent["data"].replace(b"torn", b"t\xff\xfen")
    assert client.post("/v1/logs", **sent).status_code == 200
    assert got == [b"a", "t\ufffd\ufffdn".encode()]


def test_many_lines_are_taken_in_portions(client, got):
    assert client.post("/v1/logs", **export(*map(str, range(1201)))).status_code == 200
    assert got == [str(number).encode() for number in range(1201)]


def test_a_body_of_another_kind_is_an_empty_line(client, got):
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add().body.int_value = 7
    client.post("/v1/logs", data=message.SerializeToString(), content_type=PROTOBUF)
    assert got == [b""]


BOMB = gzip.compress(b"\0" * (MAX_BYTES + 1))
HALF = gzip.compress(export(*map(str, range(100)))["data"])[:-20]
REFUSED = {
    "JSON": (415, {"data": b"{}", "headers": {"Content-Type": "application/json"}}),
    "another packing": (415, export("a", **{"Content-Encoding": "br"})),
    "not packed though it says so": (400, export("a", **{"Content-Encoding": "gzip"})),
    "half of a packed one": (400, {**export("a", **{"Content-Encoding": "gzip"}), "data": HALF}),
    "more than one packed body": (
        400,
        {**export("a", **{"Content-Encoding": "gzip"}), "data": gzip.compress(b"") + b"x"},
    ),
    "no message": (400, {"data": b"\xff\xff", "headers": {"Content-Type": PROTOBUF}}),
    "too large": (413, {"data": b"\0" * (MAX_BYTES + 1), "headers": {"Content-Type": PROTOBUF}}),
    "too large unpacked": (413, {"data": BOMB, "headers": {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}}),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_export_is_refused_for_good(client, got, status, sent):
    assert client.post("/v1/logs", **sent).status_code == status
    assert got == []


def test_more_at_once_than_it_can_take_is_asked_to_come_back():
    metrics = GatewayMetrics(Vocabulary.of(ROUTES))
    answers = []

    def take(_lines):  # as if so many others came in the meantime
        if len(answers) <= AT_ONCE:
            answers.append(None)
            answers.append(app.test_client().post("/v1/logs", **export("b")))

    app = create_app(metrics.registry, lambda: True, take)
    assert app.test_client().post("/v1/logs", **export("a")).status_code == 200
    refused = next(answer for answer in answers if answer is not None)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert app.test_client().post("/v1/logs", **export("c")).status_code == 200


def test_it_makes_spans_and_metrics_of_what_the_collector_sends(start_telemetry, collector):
    telemetry = start_telemetry(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=compose",
    )
    answer = telemetry.otlp("POST", "/v1/logs", **export(access_line(), "2026/11/22 10:00:00 [notice] 1#1: start"))
    assert answer.status_code == 200
    span = collector.one("POST /orders/", kind="SERVER")
    assert (span.service, span.resource["deployment.environment.name"]) == ("nginx", "compose")
    assert telemetry.requests() == 1
    assert telemetry.metric("gateway_log_lines_total", outcome="other") == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", None])
def test_no_type_that_a_browser_sends_without_asking_is_taken(client, got, kind):
    answer = client.post(
        "/v1/logs", data=export("a")["data"], content_type=kind, headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 415
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert got == []


@pytest.mark.parametrize("path", ["/v1/logs", "/metrics", "/healthz"])
def test_a_page_whose_name_was_given_this_address_is_refused(client, got, path):
    method = client.post if path == "/v1/logs" else client.get
    sent = export("a") if path == "/v1/logs" else {"headers": {}}
    refused = method(path, **{**sent, "headers": {**sent["headers"], "Host": "evil.example"}})
    assert refused.status_code == 400
    assert got == []
    assert method(path, **{**sent, "headers": {**sent["headers"], "Host": "gateway-telemetry:4319"}}).status_code == 200
