"""The trace of an order, as far as order-service makes it."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from structlog.testing import capture_logs

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GATEWAY = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
PLACED = 6  # spans of an order, once the JWKS is known


pytestmark = pytest.mark.usefixtures("exported")


@pytest.fixture
def known(orders, token):
    """order-service knows auth-service's keys already: no trace shows it fetch them."""
    orders.get("/orders/", token)


@pytest.fixture
def place(orders, token, known):
    def order(**kwargs):
        return orders.post("/orders/", {"product_id": 1, "quantity": 2}, token, **kwargs)

    return order


def _tree(spans):
    """Each span's name with its parent's, in the order in which they began."""
    names = {span.span_id: span.name for span in spans}
    return [(s.name, s.kind, names.get(s.parent_id)) for s in sorted(spans, key=lambda s: s.start_ns)]


def test_an_order_is_one_trace_from_the_request_to_the_row(place, collector, products, payment_peer):
    order = place(headers=GATEWAY).json()
    spans = collector.trace(TRACE, PLACED)
    assert _tree(spans) == [
        ("POST /orders/", "SERVER", None),
        ("GET /products/{product_id}", "CLIENT", "POST /orders/"),
        ("INSERT orders", "CLIENT", "POST /orders/"),
        ("settle order", "INTERNAL", "POST /orders/"),
        ("POST /internal/charges", "CLIENT", "settle order"),
        ("UPDATE orders", "CLIENT", "settle order"),
    ]
    assert {span.service for span in spans} == {"order-service"}
    assert not any(span.failed for span in spans)
    server = collector.one("POST /orders/")
    assert server.parent_id == "00f067aa0ba902b7"
    assert {name: value for name, value in server.attributes.items() if name.startswith("shop.")} == {
        "shop.order.id": order["id"],
        "shop.order.status": "PAID",
        "shop.order.quantity": 2,
        "shop.product.id": 1,
    }
    assert collector.one("settle order").attributes == {"shop.order.id": order["id"], "shop.order.status": "PAID"}
    for name, peer in (("GET /products/{product_id}", products), ("POST /internal/charges", payment_peer)):
        sent = peer.log[-1][0].headers["traceparent"]
        assert sent == f"00-{TRACE}-{collector.one(name).span_id}-01"


def test_a_statement_shows_its_template_and_none_of_its_values(place, collector):
    place(headers={**GATEWAY, "Idempotency-Key": "canary-key"})
    collector.trace(TRACE, PLACED + 1)  # one more: it looks for the key
    insert = collector.one("INSERT orders").attributes["db.query.text"]
    assert insert.startswith("INSERT INTO orders.orders (user_id, product, quantity, status, idempotency_key")
    assert "%(product)s" in insert
    bodies = b"".join(collector.bodies)
    assert b"canary" not in bodies
    assert b"Stoneware" not in bodies


def test_an_order_keeps_the_trace_in_which_it_was_placed(place, database, collector):
    place(headers=GATEWAY)
    collector.trace(TRACE, PLACED)
    ((kept,),) = database.run("SELECT traceparent FROM orders.orders")
    assert kept == f"00-{TRACE}-{collector.one('POST /orders/').span_id}-01"


def test_a_repeated_order_is_described_too(place, collector):
    first = place(headers={"Idempotency-Key": "key-1"}).json()
    place(headers={"Idempotency-Key": "key-1", **GATEWAY})
    server = collector.one("POST /orders/", trace_id=TRACE)
    assert server.attributes["shop.order.id"] == first["id"]
    assert server.attributes["shop.order.status"] == "PAID"


@pytest.mark.parametrize(
    ("status", "error_type", "event"),
    [(503, "dependency_unavailable", "order.left_pending"), (422, "charge_refused", "charge.refused")],
)
def test_an_order_left_pending_shows_why(place, collector, payments, status, error_type, event):
    payments.status = status
    with capture_logs() as events:
        place(headers=GATEWAY)
    assert event in {line["event"] for line in events}
    collector.trace(TRACE, PLACED - 1)
    settle = collector.one("settle order")
    assert (settle.failed, settle.attributes["error.type"]) == (True, error_type)
    assert settle.attributes["shop.order.status"] == "PENDING"
    call = collector.one("POST /internal/charges")
    assert (call.failed, call.attributes["error.type"]) == (True, str(status))
    server = collector.one("POST /orders/")
    assert (server.failed, server.attributes["shop.order.status"]) == (False, "PENDING")


@pytest.mark.parametrize("reason", ["refused", "no_payment", "no_price"])
def test_why_there_is_no_charge_is_one_of_few_words(place, payments, reconcile, database, reason):
    payments.status = {"refused": 422, "no_price": 503}.get(reason)
    payments.outcome = "LOST"
    with capture_logs() as events:
        place()
        if reason == "no_price":
            database.run("UPDATE orders.orders SET product = product - 'unit_price_minor'")
            reconcile()
    assert {line["reason"] for line in events if line["event"] == "charge.refused"} == {reason}


def test_an_unknown_product_is_no_order_and_no_failure_of_the_request(orders, token, known, collector, products):
    products.expect_request("/products/4711").respond_with_data(status=404)
    orders.post("/orders/", {"product_id": 4711}, token, headers=GATEWAY)
    collector.trace(TRACE, 2)
    server = collector.one("POST /orders/")
    assert not server.failed
    assert not [name for name in server.attributes if name.startswith("shop.")]
    assert collector.one("GET /products/{product_id}").failed  # to a client, a 404 is an error, says the convention


def test_the_reconciler_makes_a_trace_of_its_own_that_links_to_the_orders(
    place, collector, payments, reconcile, database
):
    payments.status = 503
    order_id = place(headers=GATEWAY).json()["id"]
    collector.trace(TRACE, PLACED - 1)
    server = collector.one("POST /orders/")
    payments.status = None
    reconcile()
    root = collector.one("reconcile order")
    assert (root.kind, root.parent_id) == ("INTERNAL", "")
    assert root.trace_id != TRACE
    assert root.links == [(TRACE, server.span_id)]
    assert root.attributes == {"shop.order.id": order_id, "shop.order.status": "PAID"}
    assert _tree(collector.trace(root.trace_id, 4)) == [
        ("reconcile order", "INTERNAL", None),
        ("settle order", "INTERNAL", "reconcile order"),
        ("POST /internal/charges", "CLIENT", "settle order"),
        ("UPDATE orders", "CLIENT", "settle order"),
    ]


@pytest.mark.parametrize("kept", [None, "", "canary", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_an_order_whose_trace_is_not_known_is_reconciled_without_a_link(
    place, collector, payments, reconcile, database, kept
):
    payments.status = 503
    place()
    payments.status = None
    database.run("UPDATE orders.orders SET traceparent = %s", kept)
    reconcile()
    assert collector.one("reconcile order").links == []


def test_the_reconcilers_own_looks_at_the_database_make_no_traces(reconcile, collector, orders):
    reconcile()
    orders.get("/nowhere")
    assert [span.name for span in collector.settled()] == ["GET"]


def test_the_keys_are_fetched_within_the_request_that_needs_them(orders, token, collector):
    response = orders.get("/orders/", token, headers=GATEWAY)
    assert response.status_code == 200
    assert _tree(collector.trace(TRACE, 3)) == [
        ("GET /orders/", "SERVER", None),
        ("GET /auth/.well-known/jwks.json", "CLIENT", "GET /orders/"),
        ("SELECT orders", "CLIENT", "GET /orders/"),
    ]


def test_every_latency_histogram_has_exemplars_that_open_its_trace(place, orders, collector):
    place(headers=GATEWAY)
    spans = {span.span_id: span for span in collector.trace(TRACE, PLACED)}
    text = orders.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
    samples = [sample for family in parse_openmetrics(text) for sample in family.samples]
    exemplars = [(sample.name, sample.exemplar.labels) for sample in samples if sample.exemplar]
    found = {
        (name.removesuffix("_bucket"), labels["span_id"]) for name, labels in exemplars if labels["trace_id"] == TRACE
    }
    assert {name for name, _ in found} == {
        "http_server_request_duration_seconds",
        "http_client_request_duration_seconds",
        "db_client_operation_duration_seconds",
        "db_client_connection_wait_time_seconds",
    }
    assert {span_id for _, span_id in found} <= set(spans)
    histograms = {sample.name.removesuffix("_bucket") for sample in samples if sample.name.endswith("_bucket")}
    assert {name for name, _ in found} == histograms  # there is none without
