"""The row that users would pick instead: zero-code instrumentation of the same five services."""

import json

import pytest
import requests

from bench.rows import ROWS
from bench.stacks import BenchStack
from observability.contract import spans_of
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


ORDER, CHARGE = "order-service server POST /orders/", "payment-service server POST /internal/charges"
EDGES = [
    ("nginx server POST /orders/", ORDER),
    (ORDER, "order-service client GET"),
    ("order-service client GET", "product-service server GET /products/{product_id}"),
    (ORDER, "order-service client INSERT"),
    (ORDER, "order-service client POST"),
    ("order-service client POST", CHARGE),
    (CHARGE, "payment-service client SELECT"),
    (CHARGE, "payment-service client INSERT"),
    (ORDER, "order-service client UPDATE"),
]


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    stack = BenchStack(ROWS["stock-full"], tmp_path_factory.mktemp("stock") / "run")
    stack.up()
    yield stack
    stack.reset()


def place_order(stock):
    """Place an order and return its trace id."""
    headers = {"Authorization": f"Bearer {stock.token()}"}
    answer = requests.post(f"{stock.gateway}/orders/", json={"product_id": 1}, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (201, "PAID")
    return answer.headers["traceresponse"].split("-")[1]


def trace_of(stock, trace_id):
    found = requests.get(f"http://127.0.0.1:{stock.ports['JAEGER']}/api/traces/{trace_id}", timeout=10).json()["data"]
    return list(spans_of(found[0])) if found else []


def test_an_order_is_one_trace_through_all_that_take_part(stock):
    place_order(stock)  # which fetches keys, too
    trace_id = place_order(stock)

    def arrived():
        spans = trace_of(stock, trace_id)
        return spans if len(spans) >= len(EDGES) + 1 else None

    spans = eventually(arrived)
    names = {span.span_id: f"{span.service} {span.kind} {span.name}" for span in spans}
    assert [names[span.span_id] for span in spans if span.parent_id is None] == ["nginx server POST /orders/"]
    assert sorted((names[span.parent_id], names[span.span_id]) for span in spans if span.parent_id) == sorted(EDGES)


def test_its_spans_are_those_of_the_official_instrumentations_only(stock):
    trace_id = place_order(stock)
    spans = eventually(lambda: trace_of(stock, trace_id))
    scopes = {span.scope["otel.scope.name"] for span in spans if span.service != "nginx"}
    assert scopes <= {f"opentelemetry.instrumentation.{name}" for name in ("flask", "psycopg2", "requests")}


def test_its_log_lines_carry_the_trace(stock):
    trace_id = place_order(stock)

    def lines():
        text = (stock.run_dir / "logs" / "order-service.log").read_text()
        found = [json.loads(line) for line in text.splitlines() if trace_id in line]
        return {line["event"] for line in found if line["service"] == "order-service"}

    eventually(lambda: {"order.created", "request.completed"} <= lines())


def test_its_metrics_are_plain(stock):
    place_order(stock)
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    text = requests.get(f"http://127.0.0.1:{stock.ports['ORDER']}/metrics", headers=accept, timeout=10).text
    assert 'http_server_request_duration_seconds_count{method="POST",route="/orders/",status="201"}' in text
    assert "trace_id" not in text
