"""What the panels with log lines show, of lines that a healthy shop may not have too; search, level and route."""

import json
import re
import time
from collections import Counter

import pytest

from observability.contract import load as load_contract
from tests.conformance.payloads import log_request
from tests.dashboards.reading import chosen, load, panels, resolved
from tests.fixtures.embedded import running_embedded
from tests.fixtures.services import eventually

BOARDS = load()
TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
SPAN = bytes.fromhex("00f067aa0ba902b7")
SAID = {
    "order-service": [
        ("info", {"event": "request.completed", "method": "POST", "http_route": "/orders/", "status": 201}),
        ("info", {"event": "request.completed", "method": "GET", "http_route": "/orders/{order_id}", "status": 404}),
        ("info", {"event": "order.settled", "order_id": 7, "status": "PAID", "payment_id": 9}),
        ("warning", {"event": "order.left_pending", "order_id": 8, "dependency": "payment-service"}),
        ("error", {"event": "request.failed", "exception_type": "KeyError", "exception_cause": "TypeError"}),
    ],
    "payment-service": [
        (
            "info",
            {"event": "charge.decided", "order_id": 7, "outcome": "DECLINED", "decline_reason": "amount_over_limit"},
        ),
        ("error", {"event": "process.crashed", "exception_type": "MemoryError"}),
    ],
    "nginx": [
        ("info", {"event": "request.completed", "method": "GET", "http_route": "unmatched", "status": 404}),
        ("error", {"event": "request.completed", "method": "POST", "http_route": "/orders/", "status": 502}),
    ],
}
NGINX_OF_ITSELF = [
    ("info", "2026/11/28 19:21:42 [notice] 1#1: start worker process 7"),
    ("error", "2026/11/28 19:21:43 [error] 7#7: can't send (111: Connection refused)"),
]


@pytest.fixture(scope="module")
def loki(tmp_path_factory):
    with running_embedded(tmp_path_factory.mktemp("logs")) as embedded:
        yield with_lines(embedded)


def with_lines(embedded):
    at = time.time_ns()
    for service, lines in SAID.items():
        records = []
        for level, fields in lines:
            at += 1_000_000
            line = json.dumps({"level": level, "service": service, "duration_s": 0.01, **fields})
            records.append((at, level, line, TRACE, SPAN))
        if service == "nginx":
            records += [(at + 1, level, line, b"", b"") for level, line in NGINX_OF_ITSELF]
        assert embedded.otlp.send("logs", log_request(service, records)).status_code == 200
    asked = {"query": '{service_name="nginx"} |= "worker"'}
    eventually(lambda: embedded.loki.get("/loki/api/v1/query_range", params=asked).json()["data"]["result"])
    return embedded.loki


def shown(loki, uid, title, **variables):
    """The lines of a panel: text -> labels."""
    [panel] = [one for one in panels(BOARDS[uid]) if one["title"] == title]
    found = {}
    for target in panel["targets"]:
        expr = resolved(target["expr"], {**chosen(BOARDS[uid]), **variables})
        answer = loki.get("/loki/api/v1/query_range", params={"query": expr})
        assert answer.status_code == 200, answer.text
        for stream in answer.json()["data"]["result"]:
            found |= {" ".join(line.split()): stream["stream"] for _, line in stream["values"]}
    return found


def test_the_overview_shows_the_errors_of_all_services_and_each_leads_to_its_trace(loki):
    found = shown(loki, "overview", "Errors in the logs")
    of_nginx = NGINX_OF_ITSELF[1][1]
    assert set(found) == {
        "request.failed KeyError TypeError",
        "process.crashed MemoryError",
        "POST /orders/ 502 in 0.01 s",
        of_nginx,
    }
    assert {labels["trace_id"] for line, labels in found.items() if line != of_nginx} == {TRACE.hex()}


def test_the_order_path_says_what_happened_to_which_order(loki):
    found = set(shown(loki, "order-path", "What order and payment say"))
    assert found >= {
        "order.settled 7 PAID",
        "order.left_pending 8 payment-service",
        "charge.decided 7 DECLINED amount_over_limit",
    }
    assert not any("201" in line for line in found)


def test_nothing_that_a_service_says_is_left_out(loki):
    for service, said in SAID.items():
        others = NGINX_OF_ITSELF if service == "nginx" else []
        assert len(shown(loki, "service", "Log", service=service)) == len(said) + len(others)


def test_no_two_fields_of_an_event_stand_together_without_a_space():
    [panel] = [one for one in panels(BOARDS["order-path"]) if one["type"] == "logs"]
    groups = re.findall(r"(?:\{\{\.\w+\}\})+", panel["targets"][0]["expr"])
    assert len(groups) > 3
    for (service, name), event in load_contract().events.items():
        for group in groups:
            together = set(re.findall(r"\w+", group)) & set(event.fields)
            assert len(together) < 2, (service, name, together)


def test_what_is_no_json_is_shown_as_it_is(loki):
    found = shown(loki, "service", "Log", service="nginx")
    assert set(found) == {
        "GET unmatched 404 in 0.01 s",
        "POST /orders/ 502 in 0.01 s",
        *(line for _, line in NGINX_OF_ITSELF),
    }


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"search": "KeyERROR"}, {"request.failed KeyError TypeError"}),
        ({"search": "{order_id}"}, {"GET /orders/{order_id} 404 in 0.01 s"}),
        ({"search": "nothing says that"}, set()),
        ({"search": "post /orders/ "}, {"POST /orders/ 201 in 0.01 s"}),  # as it is shown
        ({"search": '"dependency": "'}, {"order.left_pending 8 payment-service"}),  # as it was written
        ({"search": "("}, set()),
        ({"search": "order.*PAID"}, set()),
        ({"route": ["/orders/{order_id}"], "search": "404"}, {"GET /orders/{order_id} 404 in 0.01 s"}),
        ({"level": ["warning", "error"], "search": "order."}, {"order.left_pending 8 payment-service"}),
        (
            {"level": ["warning", "error"]},
            {"request.failed KeyError TypeError", "order.left_pending 8 payment-service"},
        ),
        (
            {"route": ["/orders/"], "level": ["info"]},
            {"POST /orders/ 201 in 0.01 s", "order.settled 7 PAID"},
        ),
    ],
)
def test_a_log_can_be_searched_and_narrowed_by_level_and_route(loki, variables, lines):
    assert set(shown(loki, "service", "Log", service="order-service", **variables)) == lines


@pytest.mark.parametrize("text", ["(", "'", "can't send (111", "[ERROR]"])
def test_a_search_takes_every_character_as_it_is(loki, text):
    assert set(shown(loki, "service", "Log", service="nginx", search=text)) == {NGINX_OF_ITSELF[1][1]}


@pytest.mark.parametrize(
    ("service", "text", "counted"),
    [
        ("order-service", "order_id", {"info": 2, "warning": 1}),
        ("order-service", "POST /orders/", {"info": 1}),
        ("order-service", "order.settled 7 PAID", {"info": 1}),
        ("order-service", "", {"info": 3, "warning": 1, "error": 1}),
        ("nginx", "", {"info": 2, "error": 2}),
        ("nginx", "(", {"error": 1}),
    ],
)
def test_bars_count_the_lines_that_are_found(loki, service, text, counted):
    [panel] = [one for one in panels(BOARDS["service"]) if one["title"] == "Log lines by level"]
    values = {**chosen(BOARDS["service"]), "service": service, "search": text}
    found = Counter()
    for target in panel["targets"]:
        expr = resolved(target["expr"], values)
        answer = loki.get("/loki/api/v1/query", params={"query": expr, "time": time.time() + 1})
        assert answer.status_code == 200, answer.text
        for one in answer.json()["data"]["result"]:
            found[one["metric"]["level"]] += int(one["value"][1])
    assert found == counted
