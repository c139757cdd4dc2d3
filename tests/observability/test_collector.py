"""What the Collector makes of what it gets: the real one, with the configuration of Compose."""

import json
import time

import pytest
import yaml

from tests.fixtures.otlp import values
from tests.fixtures.services import eventually
from tests.observability.conftest import OBSERVABILITY

TRACE, SPAN = "1a8074072b9ac2c479007861c5cb4d89", "79007861c5cb4d89"
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
FOLDER = OBSERVABILITY / "collector"


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
