"""Every metric, label, event and field that a dashboard asks for is in the telemetry contract, or is recorded of it."""

from collections import defaultdict

import pytest
import yaml

from observability.contract import FILE, Contract, load
from tests.dashboards.names import Names
from tests.dashboards.reading import load as load_boards
from tests.dashboards.reading import of_annotations, of_panels

BOARDS = load_boards()
CONTRACT = load()
NAMES = Names(CONTRACT)
QUERIES = [*of_panels(BOARDS), *of_annotations(BOARDS)]


def faults(names):
    """What is wrong with the names in all dashboards. A query for any service has to be right for one of them."""
    by_place = defaultdict(list)
    for query in QUERIES:
        if query.source in {"prometheus", "loki"}:
            find = names.faults if query.source == "prometheus" else names.logql_faults
            by_place[query.place].append(set(find(query.expr)))
    return {f"{place}: {fault}" for place, found in by_place.items() for fault in set.intersection(*found)}


def test_what_the_dashboards_ask_for_is_in_the_contract():
    found = faults(NAMES)
    assert not found, "\n".join(sorted(found))


def test_searches_name_services_and_spans_of_the_contract():
    for query in QUERIES:
        if query.source == "jaeger" and query.fields["queryType"] == "search":
            spans = {name for service, _, name in CONTRACT.spans if service == query.fields["service"]}
            assert spans, query
            assert query.fields.get("operation") in {None, *spans}, query


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("orders_total", "orders_x_total"),
        ("http_server_request_duration_seconds", "http_server_duration_seconds"),
        ("db_client_connection_state", "db_state"),
        ("otel_sdk_processor_span_queue_size", "otel_sdk_queue_size"),
        ("name: orders_pending\n", "name: orders_waiting\n"),
        ("outcome", "result"),
        ("PAID", "SETTLED"),
        ("charge.decided", "charge.made"),
        ("amount_minor", "amount"),
        ("INSERT orders", "INSERT INTO orders"),
        ("embedded_refused_total", "embedded_rejections_total"),
        ("loadtest_users", "loadtest_clients"),
        ("simulated_faults", "faults"),
        ("peer_service", "peer"),
    ],
)
def test_with_another_name_in_the_contract_the_check_fails(name, other):
    text = FILE.read_text()
    assert name in text
    assert faults(Names(Contract(yaml.safe_load(text.replace(name, other)))))


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("sum by (route) (rate(orders_total[1m]))", "route is not there to be grouped by"),
        ("sum by (status) (sum by (job) (rate(orders_total[1m])))", "status is not there to be grouped by"),
        ('rate(orders_total{status="SHIPPED"}[1m])', "orders_total has no status 'SHIPPED'"),
        ('rate(orders_total{state="PAID"}[1m])', "orders_total has no label state"),
        ("rate(order_total[1m])", "there is no metric order_total"),
        ('rate(orders_total{job="user-service"}[1m])', "there is no metric orders_total"),
        (
            "histogram_quantile(0.9, sum by (job) (rate(http_server_request_duration_seconds_bucket[1m])))",
            "le is not there for the quantile",
        ),
        ('job_route:http_server_requests:rate1m{http_response_status_code="200"}', "has no label"),
        ('http_client_request_duration_seconds_count{peer_service=~"payment-service|bank"}', "like 'bank'"),
        ("orders_pending / on (shop) orders_pending", "shop is not there to be matched"),
    ],
)
def test_a_wrong_name_in_promql_is_seen(expr, fault):
    found = NAMES.faults(expr)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ('{service_name="shop-service"}', "no stream has service_name"),
        ('{service="order-service"}', "streams have no label service"),
        ('{service_name="order-service"} | event="order.created"', "lines have no event before | json"),
        ('{service_name="order-service"} | json | event="charge.decided"', "there is no event charge.decided"),
        ('{service_name="payment-service"} | json | outcome="LOST"', "no line has outcome 'LOST'"),
        ('sum by (route) (rate({service_name="order-service"}[1m]))', "route is not there to be grouped by"),
        (
            'sum(sum_over_time({service_name="order-service"} | json | unwrap price [1m]))',
            "lines have no price",
        ),
    ],
)
def test_a_wrong_name_in_logql_is_seen(expr, fault):
    found = NAMES.logql_faults(expr)
    assert len(found) == 1
    assert fault in found[0]
