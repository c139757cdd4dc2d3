"""One order, seen whole: by `make story`, by the backends' APIs, by the sign-off."""

import json
import re

import pytest

from observability.contract import check_trace, load, spans_of
from tests.fixtures.services import Client, eventually


@pytest.fixture
def order(stack, customer):
    answer = stack.gateway.post("/orders/", {"product_id": 3}, customer)
    assert answer.status_code == 201
    return answer


def told(stack, *arguments):
    done = stack.story(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_story_of_an_order_is_whole_as_soon_as_somebody_asks(stack, order):
    done = stack.story("--order", str(order.json()["id"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not there" not in done.stdout
    assert re.search(r"^  status +PAID$", done.stdout, re.MULTILINE)
    column = re.search(r"^.+\bspan$", done.stdout, re.MULTILINE)[0].rindex("span")
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +━.*$", done.stdout, re.MULTILINE)
    spans = [re.fullmatch(r"([│├└─ ]*)(\S+) (.+?) (?:server|client|internal)\b.*", row[column:]) for row in rows]
    depths = {(span[2], span[3]): len(span[1]) // 3 for span in spans}
    assert (
        depths.items()
        >= {
            ("nginx", "POST /orders/"): 0,
            ("order-service", "POST /orders/"): 1,
            ("product-service", "GET /products/{product_id}"): 3,
            ("order-service", "INSERT orders"): 2,
            ("payment-service", "POST /internal/charges"): 4,
            ("payment-service", "INSERT payments"): 5,
            ("order-service", "UPDATE orders"): 3,
        }.items()
    )
    for service, event in (
        ("order-service", "order.created"),
        ("payment-service", "charge.decided"),
        ("nginx", "request.completed"),
    ):
        assert re.search(rf"^ *[\d.]+ +{service} +info +{event}", done.stdout, re.MULTILINE)


def test_programs_and_a_trace_id_give_the_same_story(stack, order):
    trace_id = order.headers["traceresponse"].split("-")[1]
    story = told(stack, "--trace", order.headers["traceresponse"])
    assert story["missing"] == []
    assert story["order"]["id"] == order.json()["id"]
    assert story["order"]["traceparent"].split("-")[1] == trace_id
    assert [trace["trace_id"] for trace in story["traces"]] == [trace_id]
    assert told(stack, "--order", str(order.json()["id"]))["traces"] == story["traces"]


def test_the_apis_answer_with_the_order(stack, order):
    trace_id = order.headers["traceresponse"].split("-")[1]
    jaeger, loki = Client(stack.jaeger_url), Client(stack.loki_url)

    def spans():
        data = jaeger.get("/api/traces", params={"service": "order-service", "limit": 50}).json()["data"]
        return [span for trace in data if trace["traceID"] == trace_id for span in spans_of(trace)]

    eventually(lambda: (found := spans()) and not check_trace(load(), "order", found))
    query = f'{{service_name="order-service"}} | trace_id="{trace_id}"'

    def events():
        answer = loki.get("/loki/api/v1/query_range", params={"query": query}).json()
        return {json.loads(text)["event"] for one in answer["data"]["result"] for _, text, *_ in one["values"]}

    eventually(lambda: {"order.created", "order.settled", "request.completed"} <= events())  # lines take another way
    for client in (jaeger, loki):
        client.session.close()


def test_an_order_that_was_never_placed_has_no_story(stack):
    done = stack.story("--order", "987654321")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "There is no order 987654321.\n")


def test_the_sign_off_passes(stack):
    done = stack.command("health")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not looked at" not in done.stdout


@pytest.mark.slow
def test_what_the_reconciler_did_for_an_order_is_a_part_of_its_story(shop):
    token = shop.login()
    with shop.frozen("payment-service"):
        answer = shop.gateway.post("/orders/", {"product_id": 1}, token)
        assert answer.status_code == 202
    path = answer.headers["Location"]
    eventually(lambda: shop.gateway.get(path, token).json()["status"] == "PAID", 40, pause=0.2)

    def traces():
        return told(shop, "--order", str(answer.json()["id"]))["traces"]

    def is_whole(trace):
        return (
            {"reconcile order", "settle order"} <= {span["name"] for span in trace["spans"]}  # come in batches
            and "order.settled" in {line["event"] for line in trace["log_lines"]}  # take another way
        )

    eventually(lambda: is_whole(traces()[-1]), 20, pause=0.2)
    placed, *_, reconciled = traces()
    assert placed["spans"][0]["name"] == "POST /orders/"
    assert any(span["error"] for span in placed["spans"])
    assert reconciled["spans"][0]["name"] == "reconcile order"
    assert "order.settled" in [line["event"] for line in reconciled["log_lines"]]


@pytest.mark.slow
def test_an_order_that_was_placed_right_before_the_stop_is_whole_after_the_next_start(shop):
    answer = shop.gateway.post("/orders/", {"product_id": 1}, shop.login())
    shop.down()
    shop.up()
    story = told(shop, "--order", str(answer.json()["id"]))
    assert story["missing"] == []
    assert {span["service"] for span in story["traces"][0]["spans"]} >= {"nginx", "order-service", "payment-service"}


@pytest.mark.slow
def test_without_telemetry_the_shop_runs_and_says_so(own_stack):
    shop = own_stack(TELEMETRY="off")
    assert "Telemetry is off" in shop.command("status").stdout
    done = shop.command("health")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not looked at, as this stack runs without: backends, prometheus." in done.stdout
    done = shop.story("--order", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The stack runs with TELEMETRY=off, so nothing keeps its story")
