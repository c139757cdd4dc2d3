"""What the Collector makes of what it gets: the real one, with the configuration of Compose."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from observability.contract import SeenSpan, check_spans, load
from tests.fixtures.otlp import values
from tests.fixtures.services import eventually
from tests.observability.conftest import OBSERVABILITY

TRACE, SPAN = "1a8074072b9ac2c479007861c5cb4d89", "79007861c5cb4d89"
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
FOLDER = OBSERVABILITY / "collector"
MODULE_SPAN = Path(__file__).with_name("module-span.json")


def line(service="order-service", event="order.created", **fields):
    head = {"timestamp": "2026-11-22T13:01:40.363207Z", "level": "info", "service": service, "event": event}
    return json.dumps({**head, "trace_id": TRACE, "span_id": SPAN, **fields}, separators=(",", ":"))


def test_a_line_keeps_its_whole_text_and_gets_time_ids_level_and_its_service(collector, backends):
    text = line(order_id=7, level="warning")
    collector.send_lines("order-service", text)
    [(resource, record)] = eventually(backends.lines)
    assert record.body.string_value == text
    assert record.time_unix_nano == 1_795_352_500_363_207_000
    assert (record.trace_id.hex(), record.span_id.hex()) == (TRACE, SPAN)
    assert values(record.attributes) == {"level": "warning"}
    # Loki makes fields of these where they are set, beside those that the line has.
    assert (record.severity_number, record.severity_text, record.observed_time_unix_nano) == (0, "", 0)
    assert resource == {
        "service.name": "order-service",
        "service.namespace": "shop",
        "deployment.environment.name": "compose",
    }


def test_lines_of_several_services_in_one_batch_stay_apart(collector, backends):
    for service in ("auth-service", "user-service", "order-service") * 20:
        collector.send_lines(service, line(service))
    eventually(lambda: len(backends.lines()) == 60)
    for resource, record in backends.lines():
        assert json.loads(record.body.string_value)["service"] == resource["service.name"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2026/11/22 15:13:46 [notice] 6#6: start worker process 19", "info"),
        ("2026/11/22 15:13:46 [emerg] 6#6: no such file", "error"),
        ("Traceback (most recent call last):", "error"),
        ('{"timestamp": "cut off', "info"),
        ("", "info"),
    ],
)
def test_a_line_that_is_no_json_keeps_text_service_and_a_level(collector, backends, text, level):
    collector.send_lines("nginx", text)
    [(resource, record)] = eventually(backends.lines)
    assert record.body.string_value == text
    assert resource["service.name"] == "nginx"
    assert values(record.attributes) == {"level": level}
    assert record.time_unix_nano > 0
    assert record.trace_id == b""


@pytest.mark.parametrize(
    "field",
    [
        {"password": "hunter2-secret"},
        {"new_password": 'hun\\"ter2'},
        {"Authorization": "Basic YWRtaW46cGFzc3dvcmQ="},
        {"access_token": "abc"},
        {"pin_token": 1234},
        {"message": f"refused {TOKEN} of a client"},
        {"message": "Authorization: Bearer abcdef123456"},
        {"message": "no account for jane.doe+shop@mail.example.org"},
        {"message": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA"},
        {"nested": {"user": {"email": "jane at example"}}},
    ],
    ids=str,
)
def test_secrets_and_personal_data_in_a_line_are_masked_and_it_stays_json(collector, backends, field):
    collector.send_lines("order-service", line(before="b", **field, after="a"))
    [(_, record)] = eventually(backends.lines)
    masked = json.loads(record.body.string_value)
    for secret in ("hunter2", "ter2", "YWRtaW4", "abc", "1234", "eyJ", "doe", "example", "c2Fsd", "aGFz"):
        assert secret not in record.body.string_value
    assert "****" in record.body.string_value
    assert (masked["before"], masked["after"], masked["trace_id"]) == ("b", "a", TRACE)


def test_an_ordinary_line_loses_nothing_to_redaction(collector, backends):
    text = line(
        event="token.refused",
        reason="expired",
        method="POST",
        http_route="/auth/login",
        exception_frames=["/app/a.py:3 f"],
    )
    collector.send_lines("auth-service", text)
    [(_, record)] = eventually(backends.lines)
    assert record.body.string_value == text


def test_secrets_and_personal_data_in_a_span_are_masked(collector, backends):
    attributes = {
        "http.request.header.authorization": "whatever",
        "user.email": "whatever",
        "password": 1234,
        "note": f"it was {TOKEN} of jane@example.org",
        "http.route": "/orders/{order_id}",
    }
    event = {"name": "exception", "attributes": [{"key": "exception.message", "value": {"stringValue": TOKEN}}]}
    collector.send_spans({"name": "GET /orders/{order_id}", "attributes": attributes, "events": [event]})
    [span] = eventually(backends.spans)
    assert values(span.attributes) == {
        "http.request.header.authorization": "****",
        "user.email": "****",
        "password": "****",
        "note": "it was **** of ****",
        "http.route": "/orders/{order_id}",
    }
    assert values(span.events[0].attributes) == {"exception.message": "****"}


def module_span(**changes):
    """What nginx 1.31 with its OpenTelemetry module 0.1.2 was recorded to send, with other values of the span."""
    message = json.loads(MODULE_SPAN.read_text())
    message["resourceSpans"][0]["scopeSpans"][0]["spans"][0].update(changes)
    return message


def test_the_span_of_nginxs_module_becomes_what_the_contract_says_of_it(collector, backends):
    collector.send_traces(module_span())
    [(resource, scope, span)] = eventually(backends.traces)
    seen = SeenSpan(
        service=resource["service.name"],
        kind="server" if span.kind == span.SPAN_KIND_SERVER else "other",
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=values(span.attributes),
        resource=resource,
        scope={"otel.scope.name": scope.name, "otel.scope.version": scope.version},
    )
    contract = load()
    assert contract.origin_of("nginx", scope.name) is contract.origins["module"]
    found, nothing = check_spans(contract, [seen], "compose"), check_spans(contract, [], "compose")
    assert not found.undeclared
    assert not found.missing - nothing.missing
    assert "c4n4ry" not in str(span)


def test_the_contracts_two_forms_of_the_gateways_span_are_not_taken_for_each_other():
    contract = load()
    log, module = contract.origins["log"], contract.origins["module"]
    everywhere = {name for name, rule in log.resource.items() if rule.only_in is None}
    assert everywhere - set(module.resource) == {
        "service.version",
        "service.instance.id",
        "telemetry.sdk.name",
        "telemetry.sdk.language",
        "telemetry.sdk.version",
    }
    assert contract.origin_of("nginx", "nginx") is module
    assert contract.origin_of("nginx", "observability.gateway") is log
    assert contract.origin_of("order-service", "nginx") is None


def test_the_span_of_nginxs_module_encloses_what_began_and_ended_in_its_last_millisecond(collector, backends):
    collector.send_traces(module_span())
    [span] = eventually(backends.spans)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_795_352_500_363_000_000,
        1_795_352_500_382_000_000,
    )
    collector.send_spans({"name": "POST /orders/", "duration_ms": 30})
    service = eventually(lambda: next((one for one in backends.spans() if one.span_id != span.span_id), None))
    assert service.end_time_unix_nano - service.start_time_unix_nano == 30_000_000  # no other is touched


@pytest.mark.parametrize(("parent", "kept"), [("00f067aa0ba902b7", "00f067aa0ba902b7"), ("none", "")])
def test_a_parent_of_a_trace_that_cannot_be_is_taken_out_of_the_span(collector, backends, parent, kept):
    message = module_span()
    attributes = message["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    next(one for one in attributes if one["key"] == "gateway.parent")["value"]["stringValue"] = parent
    collector.send_traces(message)
    [span] = eventually(backends.spans)
    assert span.parent_span_id.hex() == kept
    assert "gateway.parent" not in values(span.attributes)


def test_what_nginxs_module_says_of_lost_batches_goes_to_gateway_telemetry_and_is_declared(collector, backends):
    lost = "2026/11/22 15:13:46 [error] 6#6: OTel export failure: failed to connect to all addresses"
    unknown = "2026/11/22 15:13:46 [error] 6#6: order-service could not be resolved (3: Host not found)"
    collector.send_lines("order-service", lost)
    collector.send_lines("nginx", unknown, lost)
    eventually(lambda: len(backends.lines()) == 3 and backends.lines("gateway"))
    assert [record.body.string_value for _, record in backends.lines("gateway")] == [lost]
    plain = load().plain_lines("nginx")
    for text in (lost, unknown):
        assert any(re.fullmatch(one.pattern, text) for one in plain)
    request = '2026/11/22 15:13:46 [error] 6#6: *1 upstream timed out, client: 1.2.3.4, request: "GET /secret HTTP/1.1"'
    assert not any(re.fullmatch(one.pattern, request) for one in plain)


def test_the_access_log_and_nothing_else_goes_to_gateway_telemetry_too(collector, backends):
    access = line("nginx", "request.completed", method="GET")
    collector.send_lines("order-service", line())
    collector.send_lines("nginx", "2026/11/22 15:13:46 [notice] 6#6: start worker process 19", access)
    eventually(lambda: len(backends.lines()) == 3 and backends.lines("gateway"))
    assert [record.body.string_value for _, record in backends.lines("gateway")] == [access]


def test_a_single_span_and_a_single_line_are_sent_on_at_once(collector, backends):
    collector.send_spans({"name": "first"})
    eventually(backends.spans)
    began = time.monotonic()
    collector.send_spans({"name": "GET /orders/"})
    eventually(lambda: len(backends.spans()) == 2)
    collector.send_lines("order-service", line())
    eventually(backends.lines)
    assert time.monotonic() - began < 1.0  # two times the 500 ms that the design allows


def test_metrics_of_spans_are_named_as_jaeger_and_grafana_expect_them(collector, backends):
    trace_id = "ab" * 16
    collector.send_spans(
        {"name": "POST /orders/", "trace_id": trace_id, "duration_ms": 30}, {"name": "POST /orders/", "duration_ms": 30}
    )

    def calls():
        sent = backends.metrics("traces_span_metrics.calls")
        return sent[-1] if sent and sent[-1][1].sum.data_points[0].as_int == 2 else None  # a counter begins at 0

    resource, metric = eventually(calls, 20)
    assert resource == {"service.name": "order-service"}
    [point] = metric.sum.data_points
    assert values(point.attributes) == {
        "service.name": "order-service",
        "span.name": "POST /orders/",
        "span.kind": "SPAN_KIND_SERVER",
        "status.code": "STATUS_CODE_UNSET",
    }
    durations = [metric for _, metric in backends.metrics("traces_span_metrics.duration")]
    assert {duration.unit for duration in durations} == {"ms"}
    points = [point for duration in durations for point in duration.histogram.data_points]
    assert trace_id in {exemplar.trace_id.hex() for point in points for exemplar in point.exemplars}


def test_tail_sampling_keeps_errors_slow_ones_and_a_share_and_counts_all(start_collector, backends):
    collector = start_collector("tail-sampling", "processors.tail_sampling.decision_wait=1s")
    failed, slow = ["fa" * 15 + f"{n:02x}" for n in range(20)], ["51" * 15 + f"{n:02x}" for n in range(20)]
    collector.send_spans(*({"name": "failed", "trace_id": t, "status": {"code": 2}} for t in failed))
    collector.send_spans(*({"name": "slow", "trace_id": t, "duration_ms": 900} for t in slow))
    collector.send_spans(*({"name": "ordinary"} for _ in range(500)))
    eventually(lambda: len(backends.spans()) >= 40, 20)
    time.sleep(1.5)  # so that one decided too many would be here too
    kept = [(span.name, span.trace_id.hex()) for span in backends.spans()]
    assert sorted(trace for name, trace in kept if name == "failed") == failed
    assert sorted(trace for name, trace in kept if name == "slow") == slow
    assert 20 <= sum(name == "ordinary" for name, _ in kept) <= 90  # a tenth of 500

    def counted():
        sent = backends.metrics("traces_span_metrics.calls")
        points = sent[-1][1].sum.data_points if sent else ()
        return {values(point.attributes)["span.name"]: point.as_int for point in points}

    eventually(lambda: counted() == {"failed": 20, "slow": 20, "ordinary": 500}, 20)


def test_what_a_backend_could_not_take_survives_the_collectors_death(collector, backends):
    backends.status = 503
    collector.send_spans({"name": "kept"})
    collector.send_lines("order-service", line())
    queued = {"exporter": "otlp_http/loki"}
    eventually(lambda: collector.metric("otelcol_exporter_queue_size", **queued) > 0)
    collector.kill()
    backends.status = 200
    collector.start()
    eventually(lambda: [span.name for span in backends.spans()] == ["kept"] and len(backends.lines()) == 1, 20)


def test_a_full_queue_drops_and_counts_and_the_sender_is_told(start_collector, backends):
    collector = start_collector("keep-all", "exporters.otlp_http/jaeger.sending_queue.queue_size=4000")
    backends.status = 503

    def refused():
        try:
            collector.send_spans(*({"name": "x" * 100} for _ in range(10)))
        except OSError:
            return True
        return False

    eventually(refused)
    dropped = collector.metric("otelcol_exporter_enqueue_failed_spans_total", exporter="otlp_http/jaeger")
    assert dropped >= 10
    backends.status = 200
    eventually(lambda: not refused() and backends.spans(), 20)


def pipelines():
    base = yaml.safe_load((FOLDER / "config.yaml").read_text())
    for sampling in ("keep-all", "tail-sampling"):
        added = yaml.safe_load((FOLDER / f"{sampling}.yaml").read_text())
        for name, pipeline in {**base["service"]["pipelines"], **added["service"]["pipelines"]}.items():
            yield pytest.param(pipeline, id=f"{sampling} {name}")


@pytest.mark.parametrize("pipeline", list(pipelines()))
def test_each_pipeline_begins_with_the_memory_limiter(pipeline):
    assert pipeline["processors"][0] == "memory_limiter"
    if {"otlp_http/jaeger", "otlp_http/loki", "span_metrics"} & set(pipeline["exporters"]):
        assert "redaction" in pipeline["processors"]


def test_each_queue_that_holds_what_cannot_be_sent_again_is_on_disk_and_bounded():
    exporters = yaml.safe_load((FOLDER / "config.yaml").read_text())["exporters"]
    for name in set(exporters) - {"otlp_http/prometheus"}:
        queue = exporters[name]["sending_queue"]
        assert queue["storage"] == "file_storage"
        assert exporters[name]["retry_on_failure"]["max_elapsed_time"] == "0s"  # tried for as long as it takes
        assert (queue["sizer"], queue["queue_size"]) == ("bytes", 64 * 2**20)
        assert queue["batch"]["flush_timeout"] == "200ms"
