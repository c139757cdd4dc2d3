"""The order path as its users walk it: curl, gateway, services, rows."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fixtures.services import eventually

PREFIXES = {
    "auth-service": "auth",
    "user-service": "users",
    "product-service": "products",
    "order-service": "orders",
    "payment-service": "payments",
}


def test_a_customer_orders_and_finds_order_and_payment_again(stack, customer):
    answer = stack.gateway.post("/orders/", {"product_id": 1}, customer)
    assert answer.status_code == 201
    order = answer.json()
    assert stack.gateway.get(answer.headers["Location"], customer).json() == order
    assert stack.gateway.get("/orders/", customer).json()["items"][0] == order
    payment = stack.gateway.get(f"/payments/{order['payment_id']}", customer).json()
    assert (payment["order_id"], payment["amount_minor"]) == (order["id"], order["product"]["unit_price_minor"])
    assert stack.query(f"SELECT status FROM orders.orders WHERE id = {order['id']}") == [("PAID",)]


@pytest.mark.parametrize("product_id", range(1, 21))
def test_products_1_to_20_are_always_paid(stack, customer, product_id):
    assert stack.gateway.post("/orders/", {"product_id": product_id}, customer).json()["status"] == "PAID"


def test_what_is_over_the_limit_is_declined_and_kept(stack, customer):
    answer = stack.gateway.post("/orders/", {"product_id": 24}, customer)
    assert answer.status_code == 402
    kept = stack.gateway.get(answer.headers["Location"], customer).json()
    assert kept["status"] == "DECLINED"
    payment = stack.gateway.get(f"/payments/{kept['payment_id']}", customer).json()
    assert payment["decline_reason"] == "amount_over_limit"


def test_others_find_neither_order_nor_payment(stack, admin, customer):
    order = stack.gateway.post("/orders/", {"product_id": 1}, admin).json()
    for path in (f"/orders/{order['id']}", f"/payments/{order['payment_id']}"):
        assert stack.gateway.get(path, customer).status_code == 404
        assert stack.gateway.get(path, admin).status_code == 200


def test_login_answers_as_the_readme_says(stack):
    answer = stack.gateway.post("/auth/login", {"username": "admin", "password": "password"})
    assert answer.json().keys() == {"token", "token_type", "expires_in"}
    assert answer.json()["token_type"] == "Bearer"
    assert answer.headers["Cache-Control"] == "no-store"


def test_one_trace_id_goes_from_the_gateway_to_every_log(stack, customer):
    answer = stack.gateway.post("/orders/", {"product_id": 2}, customer)
    trace_id = answer.headers["traceresponse"].split("-")[1]

    def parts_that_logged_it():
        return {
            part
            for part in ("order-service", "product-service", "payment-service")
            if any(
                line.get("trace_id") == trace_id and line["event"] == "request.completed" for line in stack.log(part)
            )
        }

    eventually(lambda: parts_that_logged_it() == {"order-service", "product-service", "payment-service"})
    (created,) = [
        line
        for line in stack.log("order-service")
        if line.get("trace_id") == trace_id and line["event"] == "order.created"
    ]
    assert created["order_id"] == answer.json()["id"]


def test_a_traceparent_is_continued(stack, customer):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = stack.gateway.get("/orders/", customer, headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert trace_id in answer.headers["traceresponse"]
    eventually(lambda: any(line.get("trace_id") == trace_id for line in stack.log("order-service")))


def test_errors_of_gateway_and_services_carry_the_trace_id(stack, customer):
    for answer in (
        stack.gateway.get("/nothing-here"),
        stack.gateway.get("/orders/"),
        stack.gateway.get("/orders/999999", customer),
        stack.gateway.post("/orders/", {"product_id": 999}, customer),
    ):
        problem = answer.json()
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "trace_id"} <= problem.keys()
        assert problem["trace_id"] == answer.headers["traceresponse"].split("-")[1]


@pytest.mark.parametrize("prefix", ["auth", "users", "products", "orders", "payments"])
def test_what_is_internal_is_not_reachable(stack, prefix):
    for path in ("/internal/charges", "/internal/credentials", "/internal/token", "/metrics", "/readyz"):
        assert stack.gateway.get(path).status_code == 404
        assert stack.gateway.get(f"/{prefix}{path}").status_code == 404
        assert stack.gateway.post(f"/{prefix}{path}", {}).status_code in {404, 405}


def test_every_service_counts_its_requests_by_route(stack, customer):
    stack.gateway.post("/orders/", {"product_id": 3}, customer)
    counted = stack.service("order-service").metric(
        "http_server_request_duration_seconds_count",
        http_route="/orders/",
        http_request_method="POST",
        http_response_status_code="201",
    )
    assert counted >= 1
    for service in PREFIXES:
        assert stack.service(service).metric("process_resident_memory_bytes") > 0


def test_rotating_the_keys_logs_nobody_out(stack, customer):
    def kids():
        return [key["kid"] for key in stack.gateway.get("/auth/.well-known/jwks.json").json()["keys"]]

    before = kids()
    done = stack.command("rotate-keys")
    assert done.returncode == 0, done.stderr
    assert kids()[: len(before)] == before
    assert len(kids()) == len(before) + 1
    assert stack.gateway.get("/orders/", customer).status_code == 200
    assert stack.gateway.get("/orders/", stack.login()).status_code == 200


def test_forty_orders_at_once_are_forty_rows_and_forty_charges(stack, customer):
    before = stack.query("SELECT max(id) FROM orders.orders")[0][0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: stack.gateway.post("/orders/", {"product_id": n % 20 + 1}, customer), range(40))
        )
    assert {answer.status_code for answer in answers} == {201}
    books = stack.query(
        "SELECT count(*), count(DISTINCT o.id), count(DISTINCT p.id) FROM orders.orders o"
        f" JOIN payments.payments p ON p.order_id = o.id AND p.outcome = o.status WHERE o.id > {before}"
    )
    assert books == [(40, 40, 40)]


def test_no_secret_and_no_name_is_in_any_log(stack):
    marked = "canary-5f2e"
    stack.gateway.post("/auth/login", {"username": f"{marked}-user", "password": f"{marked}-password"})
    stack.gateway.post("/users/", {"username": f"{marked}", "password": f"{marked}-password"})
    token = stack.login(marked, f"{marked}-password")
    stack.gateway.get(f"/orders/?{marked}=1", token, headers={"X-Api-Key": marked, "Cookie": marked})
    stack.gateway.get(f"/orders/{marked}", token)
    stack.gateway.post("/orders/", {marked: marked}, token)
    stack.gateway.post("/orders/", {"product_id": 1}, token, headers={"Idempotency-Key": marked})
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    stack.gateway.get("/orders/", token, headers={"traceparent": traceparent, "tracestate": f"{marked.upper()}==="})
    stack.gateway.get(f"/orders/?x=\N{LATIN SMALL LETTER E WITH ACUTE}{marked}")
    # What each part says last is there: so is all that it said before.
    for part, prefix in PREFIXES.items():
        last = stack.gateway.get(f"/{prefix}/openapi.json").headers["traceresponse"].split("-")[1]
        eventually(lambda part=part, last=last: any(line.get("trace_id") == last for line in stack.log(part)))
        eventually(lambda last=last: any(line.get("trace_id") == last for line in stack.log("nginx")))
    for log in (stack.run_dir / "logs").iterdir():
        text = log.read_text()
        assert marked not in text, log.name
        assert token not in text, log.name
        assert token.rpartition(".")[2] not in text, log.name
