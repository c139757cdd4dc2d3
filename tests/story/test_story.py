import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from local.processes import child
from tests.fixtures.ports import free_port
from tests.fixtures.programs import IN_BACKGROUND
from tests.story.conftest import LATE, ROW, START, TRACE, line, order_lines, order_spans, span

PROJECT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "observability.story", "--order", "7"]


def late_spans():
    return [span(9, 0, "order-service", "reconcile order", "internal", 9000, 30, trace=LATE, shop__order__id=7)]


def test_an_order_is_told_with_its_row_its_tree_and_its_lines(tell):
    status, said, err = tell("--order", "7")
    assert (status, err) == (0, "")
    assert re.search(r"^  status +PAID$", said, re.MULTILINE)
    assert re.search(r'^  product +\{"sku":"KIT-MUG-001"\} *$', said, re.MULTILINE)
    assert f"Trace {TRACE}: POST /orders/, 6 spans of 3 services, 99.0 ms from" in said
    tree = [row[2] for row in re.findall(r"^ *([\d.]+) +([\d.]+) +━+ +(.*)$", said, re.MULTILINE)]
    assert [re.sub(r"  +", " | ", row) for row in tree] == [
        "nginx POST /orders/ server | 201",
        "└─ order-service POST /orders/ server | order.id=7 order.status=PAID",
        "├─ order-service GET /products/{product_id} client",
        "│ | └─ product-service GET /products/{product_id} server",
        "├─ order-service INSERT orders client",
        "└─ order-service settle order internal | order.id=7",
    ]
    lines = re.findall(r"^ *([\d.]+) +(\S+) +info +(\S+)(?: +(.*))?$", said, re.MULTILINE)
    assert lines == [
        ("5.0", "product-service", "request.completed", ""),
        ("15.0", "order-service", "order.created", "order_id=7"),
        ("98.0", "order-service", "request.completed", ""),
        ("99.0", "nginx", "request.completed", "status=201"),
    ]
    assert "Not there" not in said


def test_errors_are_told_in_words(tell, shop):
    shop.spans[0]["tags"] += [{"key": "error", "value": True}, {"key": "error.type", "value": "503"}]
    shop.spans[0]["tags"][1]["value"] = 503
    shop.lines.append((int((START + 0.05) * 1e9), "no JSON at all"))
    _, said, _ = tell("--order", "7")
    assert re.search(r"nginx POST /orders/ server +ERROR 503$", said, re.MULTILINE)
    assert re.search(r"^ *50\.0 +order-service +no JSON at all$", said, re.MULTILINE)


def test_no_colours_where_nobody_sees_them(tell):
    assert "\x1b" not in tell("--order", "7")[1]


def test_a_terminal_gets_colours_and_its_own_width(shop):
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([*COMMAND, "--wait", "0"], cwd=PROJECT, env=environment, stdout=follower, stdin=follower, check=True)
    os.close(follower)
    said = b""
    while chunk := _read(leader):
        said += chunk
    os.close(leader)
    assert b"\x1b[1m" in said
    plain = re.sub(r"\x1b\[[\d;]*m", "", said.decode()).splitlines()
    assert max(map(len, plain)) <= 100


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # all was read, and nobody writes any more
        return b""


def test_it_waits_for_what_is_on_its_way(tell, shop):
    rounds = iter(range(100))
    spans, lines = order_spans(), order_lines()
    shop.spans = lambda: spans[next(rounds) // 2 % 2 * 2 :] if next(rounds) < 8 else spans
    shop.lines = lambda: lines if next(rounds) > 16 else lines[1:]
    began = time.monotonic()
    status, said, _ = tell("--order", "7", wait="20")
    assert time.monotonic() - began < 10
    assert status == 0
    assert "6 spans" in said
    assert "Not there" not in said


@pytest.mark.parametrize(
    ("take_away", "told"),
    [
        ("1", "the span above order-service's POST /orders/"),
        ("4", "product-service's span below order-service's GET /products/{product_id}"),
        ("123456", f"no span of trace {TRACE}"),
    ],
)
def test_it_waits_no_longer_than_it_may_and_says_which_spans_are_missing(tell, shop, take_away, told):
    shop.spans = [one for one in shop.spans if one["spanID"][-1] not in take_away]
    began = time.monotonic()
    status, said, _ = tell("--order", "7", wait="0.5")
    assert 0.5 < time.monotonic() - began < 2
    assert status == 0
    assert f"Not there (yet): {told}." in said
    assert "order.created" in said


def test_it_says_which_log_line_is_missing(tell, shop):
    del shop.lines[1]
    _, said, _ = tell("--order", "7")
    assert "Not there (yet): the log line of product-service's GET /products/{product_id}." in said


def test_a_call_that_failed_has_no_span_below_it(tell, shop):
    shop.spans[2]["tags"].append({"key": "error", "value": True})
    del shop.spans[3], shop.lines[1]
    assert "Not there" not in tell("--order", "7")[1]


def test_the_clients_span_above_the_gateways_is_not_missed(tell, shop):
    shop.spans[0] = {**shop.spans[0], **span(1, 99, "nginx", "POST /orders/", "server", 0, 99)}
    assert "Not there" not in tell("--order", "7")[1]


def test_a_later_trace_of_the_order_is_told_too(tell, shop):
    shop.spans += late_spans()
    shop.lines += [line(9, "order-service", "order.settled", 9020, trace=LATE, late=True)]
    _, said, _ = tell("--order", "7")
    assert said.index(TRACE) < said.index(f"Trace {LATE}: reconcile order, 1 spans of 1 services, 30.0 ms")
    assert re.search(r"^ *20\.0 +order-service +info +order.settled +late=true", said, re.MULTILINE)


def test_the_trace_of_an_order_that_does_not_name_it_is_searched_for(tell, shop):
    shop.row_file.write_text(json.dumps(ROW | {"traceparent": None}))
    assert f"Trace {TRACE}: " in tell("--order", "7")[1]
    shop.spans = []
    assert "Not there (yet): any trace of order 7." in tell("--order", "7")[1]


def test_an_order_whose_trace_was_not_to_be_recorded_is_told_by_its_lines(tell, shop):
    shop.row_file.write_text(json.dumps(ROW | {"traceparent": f"00-{TRACE}-0000000000000002-00"}))
    shop.spans = []
    began = time.monotonic()
    _, said, _ = tell("--order", "7", wait="20")
    assert time.monotonic() - began < 10
    assert "asked not to record it" in said
    assert "order.created" in said
    assert "Not there" not in said


@pytest.mark.parametrize("text", [TRACE, TRACE.upper(), f"00-{TRACE}-0000000000000002-03"])
def test_a_trace_is_told_with_the_order_that_it_is_about(tell, text):
    status, said, _ = tell("--trace", text)
    assert status == 0
    assert re.search(r"^  status +PAID$", said, re.MULTILINE)
    assert f"Trace {TRACE}: POST /orders/" in said
    assert "order.created" in said


def test_the_reconcilers_trace_leads_to_the_one_in_which_the_order_was_placed(tell, shop):
    shop.spans += late_spans()
    said = tell("--trace", LATE)[1]
    assert said.index(f"Trace {TRACE}: POST /orders/") < said.index(f"Trace {LATE}: reconcile order")


def test_a_trace_about_no_order_is_told_without_a_row(tell, shop):
    shop.spans = [span(1, 0, "nginx", "GET /products/", "server", 0, 9)]
    shop.lines = [line(1, "nginx", "request.completed", 9)]
    status, said, _ = tell("--trace", TRACE)
    assert status == 0
    assert said.strip().startswith(f"Trace {TRACE}: GET /products/, 1 spans")


def test_a_trace_of_which_nothing_is_known_is_told(tell, shop):
    assert tell("--trace", LATE) == (1, "", f"There is no trace {LATE}: neither Jaeger nor Loki has anything of it.\n")


def test_programs_get_json(tell, shop):
    shop.spans += late_spans()
    status, said, err = tell("--order", "7", "--json")
    assert (status, err) == (0, "")
    story = json.loads(said)
    assert story["order"] == ROW
    assert [trace["trace_id"] for trace in story["traces"]] == [TRACE, LATE]
    assert (story["missing"], story["errors"]) == ([], [])
    trace = story["traces"][0]
    assert trace["duration_ms"] == 99
    assert [(one["service"], one["depth"]) for one in trace["spans"]][:4] == [
        ("nginx", 0),
        ("order-service", 1),
        ("order-service", 2),
        ("product-service", 3),
    ]
    assert trace["spans"][1]["attributes"]["shop.order.id"] == 7
    assert trace["spans"][1]["parent_span_id"] == trace["spans"][0]["span_id"]
    created = next(one for one in trace["log_lines"] if one["event"] == "order.created")
    assert (round(created["time_ms"]), created["fields"]) == (15, {"order_id": 7})


def test_an_order_that_does_not_exist_is_told(tell):
    assert tell("--order", "8") == (1, "", "There is no order 8.\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--order", "seven"], "an order has a whole number, such as 7, not 'seven'"),
        (["--order", "0"], "an order has a whole number"),
        (["--order", "2147483648"], "an order has a whole number"),
        (["--order", "7; DROP TABLE"], "an order has a whole number"),
        (["--trace", "abc"], "a trace id has 32 hexadecimal digits, not 'abc'"),
        (["--order", "7", "--trace", TRACE], "not allowed with"),
        ([], "one of the arguments --order --trace is required"),
    ],
)
def test_what_cannot_be_asked_for_is_told_with_status_2(tell, arguments, told):
    status, _, err = tell(*arguments)
    assert status == 2
    assert told in err


def test_without_a_shop_it_says_how_to_have_one(tell, shop):
    shop.docker.write_text("#!/bin/sh\necho 'Error response from daemon: No such container: order-db' >&2\nexit 1\n")
    status, said, err = tell("--order", "7")
    assert (status, said) == (1, "")
    assert err == (
        "No shop runs here: no local stack (`make up`), and no container order-db can be asked"
        " (Error response from daemon: No such container: order-db).\n"
    )
    shop.docker.unlink()
    assert "(there is no docker command)" in tell("--order", "7")[2]


@pytest.mark.parametrize(
    ("name", "who", "kept"), [("JAEGER_URL", "Jaeger", "order.created"), ("LOKI_URL", "Loki", "settle order")]
)
def test_a_backend_that_does_not_answer_is_told_and_the_rest_of_the_story_too(tell, monkeypatch, name, who, kept):
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    status, said, err = tell("--order", "7", wait="20")
    assert status == 1
    assert re.fullmatch(rf"{who}'s API at http://\S+ does not answer \(nothing listens there\): .*\n", err)
    assert re.search(r"^  status +PAID$", said, re.MULTILINE)
    assert kept in said
    assert "Not there" not in said


def test_in_compose_the_backends_are_at_the_ports_that_compose_was_given(tell, shop, monkeypatch):
    for name in ("JAEGER", "LOKI"):
        monkeypatch.delenv(f"{name}_URL")
        monkeypatch.setenv(f"{name}_PORT", str(shop.server.port))
    status, said, err = tell("--order", "7")
    assert (status, err) == (0, "")
    assert "order.created" in said


def test_the_lines_of_an_old_order_are_looked_for_in_a_day(tell, shop):
    shop.spans = []
    shop.row_file.write_text(json.dumps({**ROW, "created_at": "2020-01-01T00:00:00"}))
    tell("--order", "7")
    [asked] = [path for path in shop.asked if path.startswith("/loki")]
    start, end = (int(re.search(rf"{name}=(\d+)", asked)[1]) / 1e9 for name in ("start", "end"))
    assert start < 1577836800 < end < start + 2 * 86_400


def test_a_backend_that_answers_an_error_is_quoted(tell, shop):
    shop.server.clear()
    shop.server.expect_request(re.compile(".*")).respond_with_data("too  many\nrequests", 429)
    status, _, err = tell("--order", "7")
    assert status == 1
    assert "answers 429 to /api/traces: too many requests" in err


@pytest.mark.parametrize("prefix", [(), IN_BACKGROUND], ids=["by hand", "in the background"])
def test_ctrl_c_ends_it_quietly(shop, prefix):
    asked, end = threading.Event(), threading.Event()

    def hang(_request):
        asked.set()
        end.wait(2)

    shop.server.clear()
    shop.server.expect_request(re.compile(".*")).respond_with_handler(hang)
    command = [*prefix, *COMMAND]
    with child(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert asked.wait(20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    end.set()
    shop.server.clear()
    assert (process.returncode, err) == (130, b"")


def test_whoever_has_read_enough_may_close_the_pipe(shop):
    shop.lines += [line(2, "order-service", "order.noted", 20, text="x" * 1000) for _ in range(500)]
    # Unbuffered, Python would not even notice.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with child(COMMAND, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"Order 7\n"
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")
