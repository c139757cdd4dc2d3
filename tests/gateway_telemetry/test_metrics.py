"""The gateway's metrics: by route, bounded, with exemplars that open."""

import json
import re

import pytest
from servicekit.telemetry.exporting import QUEUE

from observability.gateway.line import Vocabulary
from observability.gateway.metrics import GatewayMetrics
from observability.gateway.pipeline import Pipeline
from observability.gateway.settings import ROUTES
from tests.fixtures.gateway_telemetry import SPAN, TRACE, access_line

COUNT = "http_server_request_duration_seconds_count"
UPSTREAM = "gateway_upstream_duration_seconds_count"


class Export:
    """Stands in for the exporter: a queue that somebody has to empty."""

    def __init__(self, full_for=0):
        self.spans = []
        self.full_for = full_for

    def take(self, span):
        self.spans.append(span)

    def waiting(self):
        self.full_for -= 1
        return QUEUE if self.full_for >= 0 else 0


class Counted:
    """A pipeline and its metrics."""

    def __init__(self, export=None, patience_seconds=0.2, *, module=False):
        vocabulary = Vocabulary.of(ROUTES)
        metrics = GatewayMetrics(vocabulary, module=module)
        self.registry = metrics.registry
        self.take = Pipeline(vocabulary, metrics, export, patience_seconds).take

    def lines(self, *texts):
        self.take([text.encode() for text in texts])

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def series(self):
        return sum(len(family.samples) for family in self.registry.collect())


def labels(method="POST", route="/orders/", status="201"):
    return {"http_request_method": method, "http_route": route, "http_response_status_code": status}


def test_a_request_is_counted_by_method_route_and_status():
    counted = Counted()
    counted.lines(access_line(), access_line(status=503), access_line(), access_line(status=0))
    assert counted.value(COUNT, **labels()) == 2
    assert counted.value(COUNT, **labels(status="503")) == 1
    assert counted.value(COUNT, **labels(status="0")) == 1
    assert counted.value("http_server_request_duration_seconds_sum", **labels()) == pytest.approx(0.024)
    assert counted.value(UPSTREAM, peer_service="order-service") == 4


@pytest.mark.parametrize(
    ("line", "served"),
    [
        ({"duration_s": 9.0, "upstream_duration_s": 0.011, "upstream_tries_s": "0.011"}, 0.011),
        ({"upstream_duration_s": 0.02, "upstream_tries_s": "1.001, 0.020"}, 1.021),
        ({"upstream_duration_s": 0.02, "upstream_tries_s": "0.002 : 0.020"}, 0.022),
        ({"upstream_duration_s": 0.02, "upstream_tries_s": "-, 0.020"}, 0.02),
        ({"upstream_duration_s": 0.0, "upstream_tries_s": "0.000"}, 0.0),
        ({"upstream_duration_s": 0.011, "upstream_tries_s": ""}, 0.011),
    ],
)
def test_what_a_service_took_is_all_tries_and_nothing_of_the_client(line, served):
    counted = Counted()
    counted.lines(access_line(**line))
    assert counted.value("gateway_service_duration_seconds_count", **labels()) == 1
    assert counted.value("gateway_service_duration_seconds_sum", **labels()) == pytest.approx(served)


def test_a_request_that_no_service_saw_has_no_time_of_a_service():
    counted = Counted()
    counted.lines(access_line(status=400, upstream="", upstream_duration_s=None, upstream_tries_s=""))
    assert counted.value(COUNT, **labels(status="400")) == 1
    assert counted.value("gateway_service_duration_seconds_count", **labels(status="400")) is None


def test_without_a_service_asked_there_is_no_upstream_time():
    counted = Counted()
    counted.lines(access_line(upstream="", upstream_duration_s=None), access_line(upstream="made-up-service"))
    assert all(
        counted.value(UPSTREAM, peer_service=f"{name}-service") == 0
        for name in ("auth", "user", "product", "order", "payment")
    )


def test_a_scan_of_random_paths_and_methods_adds_no_series():
    counted = Counted()
    counted.lines(access_line(http_route="unmatched", status=404), access_line(method="_OTHER"), access_line())
    before = counted.series()
    for number in range(200):
        counted.lines(
            access_line(http_route=f"/{number}", status=404),
            access_line(method=f"M{number}"),
            access_line(upstream=f"service-{number}"),
        )
    assert counted.series() == before


@pytest.mark.parametrize(("flags", "has"), [("01", True), ("00", False), ("", False)])
def test_an_exemplar_names_the_span_if_there_is_one(flags, has):
    counted = Counted()
    counted.lines(access_line(trace_flags=flags))
    exemplars = {
        sample.name.removesuffix("_bucket"): sample.exemplar.labels
        for family in counted.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    ids = {"trace_id": TRACE, "span_id": SPAN}
    assert exemplars == (
        {"http_server_request_duration_seconds": ids, "gateway_upstream_duration_seconds": ids} if has else {}
    )


REFUSED = {"upstream": "", "upstream_duration_s": None, "upstream_tries_s": ""}


def has_exemplar(counted, **line):
    counted.lines(access_line(**line))
    return any(one.exemplar for family in counted.registry.collect() for one in family.samples)


@pytest.mark.parametrize("route", ["/orders/", "unmatched"])
@pytest.mark.parametrize("status", [400, 405, 413, 414, 431])
def test_what_nginx_may_refuse_before_a_location_has_an_exemplar_only_where_its_module_makes_no_spans(status, route):
    line = REFUSED | {"status": status, "http_route": route}
    assert not has_exemplar(Counted(module=True), **line)
    assert has_exemplar(Counted(), **line)


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("status", [408, 429, 499])
def test_what_the_gateway_refuses_at_a_route_has_an_exemplar_whoever_makes_the_span(status, module):
    assert has_exemplar(Counted(module=module), **REFUSED | {"status": status})


@pytest.mark.parametrize("line", [{"status": 404}, {"status": 503, "upstream": ""}, {"status": 200, "upstream": ""}])
def test_a_services_no_and_the_gateways_own_answers_and_failures_have_one(line):
    counted = Counted()
    counted.lines(access_line(**line))
    assert any(one.exemplar for family in counted.registry.collect() for one in family.samples)


def test_a_batch_that_nginxs_module_lost_is_counted():
    counted = Counted()
    assert counted.value("gateway_span_batches_lost_total") == 0
    counted.lines(
        "2026/11/22 10:00:00 [error] 30#30: OTel export failure: failed to connect to all addresses",
        "2026/11/22 10:00:00 [notice] 30#30: start worker process 31",
        access_line(),
    )
    assert counted.value("gateway_span_batches_lost_total") == 1
    assert counted.value("gateway_log_lines_total", outcome="other") == 2


def test_malformed_lines_are_counted_and_stop_nothing():
    counted = Counted()
    texts = ["{", "{}", '{"service":"nginx"}', access_line(status="x"), '{"a":' * 5000, access_line()[:-1], "{\x00}"]
    counted.take([*(text.encode() for text in texts), b'{"\xff":1}', b"", b"\xff", b"nginx: [emerg] no", b"[1]"])
    counted.lines(access_line())
    outcomes = {name: counted.value("gateway_log_lines_total", outcome=name) for name in ("request", "malformed")}
    assert outcomes == {"request": 1, "malformed": 8}
    assert counted.value("gateway_log_lines_total", outcome="other") == 4


def test_all_that_is_counted_begins_at_zero():
    counted = Counted()
    assert [counted.value("gateway_log_lines_total", outcome=name) for name in ("request", "malformed", "other")] == [
        0,
        0,
        0,
    ]
    assert counted.value(UPSTREAM, peer_service="payment-service") == 0
    assert [counted.value(COUNT, **labels(status=status)) for status in ("201", "202", "402", "500", "503")] == [0] * 5
    login = [labels(route="/auth/login", status=status) for status in ("200", "401", "502", "504")]
    assert [counted.value(COUNT, **one) for one in login] == [0] * 4


def test_the_delay_is_that_of_the_newest_line():
    counted = Counted()
    counted.lines(access_line(timestamp="2026-01-01T00:00:00.000Z"))
    assert counted.value("gateway_log_delay_seconds") > 3600
    counted.lines(access_line(timestamp="2300-01-01T00:00:00.000Z"))
    assert counted.value("gateway_log_delay_seconds") == 0  # clocks differ


def test_nothing_else_of_a_line_is_looked_at():
    export = Export()
    counted = Counted(export)
    line = json.loads(access_line()) | {"path": "/c4n4ry", "user_agent": "c4n4ry", "http.target": "c4n4ry"}
    counted.lines(json.dumps(line))
    (span,) = export.spans
    text = repr((span.name, span.attributes, list(counted.registry.collect())))
    assert "POST /orders/" in text
    assert "c4n4ry" not in text


def test_lines_wait_for_a_queue_that_empties():
    export = Export(full_for=3)
    counted = Counted(export)
    counted.lines(access_line())
    assert export.full_for < 0
    assert len(export.spans) == 1


def test_metrics_do_not_wait_for_a_queue_that_stays_full():
    export = Export(full_for=10**9)
    counted = Counted(export, patience_seconds=0.05)
    for _ in range(200):  # 10 s, were each to wait
        counted.lines(access_line())
    assert counted.value(COUNT, **labels()) == 200
    assert len(export.spans) == 200  # given to the queue, which drops and counts
    export.full_for = 0
    counted.lines(access_line())
    export.full_for = 2
    counted.lines(access_line())
    assert export.full_for < 0  # it waited: there had been room again


def test_buckets_are_those_of_the_services():
    counted = Counted()
    counted.lines(access_line())
    names = {
        "http_server_request_duration_seconds_bucket": labels(),
        "gateway_upstream_duration_seconds_bucket": {"peer_service": "order-service"},
    }
    bounds = {
        name: [
            sample.labels["le"]
            for family in counted.registry.collect()
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= of.items()
        ]
        for name, of in names.items()
    }
    assert len({tuple(found) for found in bounds.values()}) == 1
    assert all(re.fullmatch(r"[0-9.]+|\+Inf", bound) for found in bounds.values() for bound in found)
