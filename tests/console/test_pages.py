"""What each page shows, and what it says when it has nothing to show."""

import html
import itertools
import json
import os
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from werkzeug import Response

from observability.console.dashboards import boards
from observability.console.overview import RUNBOOKS
from observability.why import cli
from tests.console.conftest import START, TRACE, order, span, trace


def test_an_order_is_shown_with_its_row_its_spans_and_its_log_lines_in_place(page):
    text = page("/orders/7")
    assert "Stoneware mug" in text
    assert "14.50 EUR" in text
    assert TRACE in text
    rows = re.findall(r'class="wrow[^"]*"', text)
    assert len(rows) == 1 + 3 + 2  # the axis, spans, log lines
    told = text[text.index('class="waterfall"') :]
    assert told.index("order.created") < told.index("INSERT orders")  # below its span, above that span's children
    marks = [float(found) for found in re.findall(r'class="mark [^"]*" d="M([\d.]+) ', told)]
    assert marks == [pytest.approx(98 / 99 * 1000, abs=1), pytest.approx(15 / 99 * 1000, abs=1)]


def test_a_chosen_span_shows_its_attributes(page):
    assert "shop.order.id" not in page("/orders/7")
    assert "shop.order.id" in page(f"/orders/7?span={2:016x}")


def test_an_order_that_is_not_there_is_a_404_that_says_so(console):
    answer = console().get("/orders/8")
    assert answer.status_code == 404
    assert "There is no order 8." in answer.text


def test_orders_can_be_chosen_by_status_and_duration(page, apis):
    apis.orders[8] = order(8, status="DECLINED")
    assert {"#7", "#8"} <= set(re.findall(r"#\d", page("/orders/")))
    assert "#8" not in page("/orders/?status=PAID")
    assert "#7" in page("/orders/?slower=50")
    assert "#7" not in page("/orders/?slower=250")


@pytest.mark.parametrize("chosen", ["", "?status=PAID", "?status=PENDING", "?slower=50"])
def test_the_orders_say_which_ones_the_filters_look_at(page, apis, chosen):
    apis.orders[8] = order(8, status="DECLINED")
    assert "Status and Took look at the newest 2 only" in page(f"/orders/{chosen}")


def test_a_burst_places_ten_and_a_token_that_expired_is_renewed(console, apis):
    client = console()
    assert client.post("/orders/", data={"count": "10"}).location == "/orders/"
    assert len(apis.placed) == 10
    assert len(apis.logins) == 1


def test_without_the_demo_login_the_console_asks_who_is_there(console, apis):
    client = console(console_demo_login=False)
    answer = client.get("/orders/7")
    assert answer.status_code == 401
    assert 'name="password"' in answer.text
    assert not apis.logins
    wrong = client.post("/login", data={"username": "admin", "password": "guess"})
    assert wrong.status_code == 401
    assert "Wrong credentials." in wrong.text
    answer = client.post("/login", data={"username": "admin", "password": "password", "after": "/orders/7"})
    assert answer.location == "/orders/7"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Stoneware mug" in client.get("/orders/7").text


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("7", "/orders/7"),
        ("%237", "/orders/7"),
        (TRACE, f"/traces/{TRACE}"),
        ("disk full", "/logs?q="),
        ("99999999999", "/logs?q="),
        ("²", "/logs?q="),
    ],
)
def test_the_search_box_leads_to_what_was_typed(console, typed, place):
    assert console().get(f"/find?q={typed}").location.startswith(place)


def test_a_wrong_logql_shows_where_it_is_wrong(page, apis):
    apis.loki_says = "parse error at line 1, col 8: syntax error: unexpected IDENTIFIER"
    text = page("/logs?q={a='b'}")
    assert "unexpected IDENTIFIER" in text
    assert "\n       ^" in text


@pytest.mark.parametrize("path", ["/", "/orders/", "/traces/", "/logs", "/dashboards/", "/dashboards/service"])
def test_a_page_says_what_cannot_be_asked_and_what_to_do(console, path):
    dead = dict.fromkeys(("gateway_url", "jaeger_url", "loki_url", "prometheus_url"), "http://127.0.0.1:9")
    answer = console(**dead).get(path)
    assert answer.status_code == 200
    assert "nothing listens there" in answer.text
    assert "make status" in answer.text


@pytest.mark.parametrize("path", ["/", "/orders/", "/traces/", "/logs", "/dashboards/", "/traces/compare"])
def test_a_page_with_nothing_to_show_says_so(page, apis, path):
    apis.orders, apis.trace, apis.lines, apis.series, apis.calls = {}, None, [], [], []
    assert 'class="empty"' in page(path)


def test_what_is_wrong_is_told_as_make_why_tells_it(page, console, apis):
    apis.trace, apis.lines, apis.series = None, [], []
    assert "Nothing is wrong" in page("/why")
    assert console().get("/why?json").json["state"] == "well"
    apis.series = [{"metric": {"job": "order-service"}, "values": [[time.time() - ago, "0"] for ago in (30, 15, 0)]}]
    apis.series[0]["values"].insert(0, [time.time() - 300, "1"])
    text = page("/why")
    assert "Something is wrong" in text
    assert "No replica of order-service answers Prometheus now." in text


def _trace(number, at, slow):
    """A request of the gateway's, at a time in seconds since 1970; a slow one waits in order-service."""
    took = 900 if slow else 20
    spans = [
        span(1, 0, "nginx", "POST /orders/", 0, took + 2, http__response__status_code=201),
        span(2, 1, "order-service", "POST /orders/", 1, took, http__response__status_code=201),
    ]
    for one in spans:
        one["traceID"] = f"{number:032x}"
        one["startTime"] += int((at - START) * 1e6)
        one["references"] = [{**each, "traceID": one["traceID"]} for each in one["references"]]
    return {**trace(*spans), "traceID": f"{number:032x}"}


@pytest.fixture
def trouble(apis):
    """Orders are slow since a minute, an alert fires, and a service is gone."""
    now = time.time()
    traces = [_trace(900 - ago, now - ago, slow=ago < 60) for ago in range(2, 900, 3)]

    by_id = {one["traceID"]: one for one in traces}

    def searched(request):
        start, end = (int(request.args[name]) / 1e6 for name in ("start", "end"))
        least, limit = int(request.args.get("minDuration", "0us")[:-2]), int(request.args["limit"])
        fits = [
            one for one in traces if start <= one["spans"][0]["startTime"] / 1e6 <= end and "tags" not in request.args
        ]
        return {"data": [one for one in fits if one["spans"][0]["duration"] >= least][:limit]}

    def measured(_):
        values = [[now - ago, "0.9" if ago < 60 else "0.1"] for ago in range(900, 0, -15)]
        found = [{"metric": {"job": "order-service"}, "values": values}]
        return {"status": "success", "data": {"resultType": "matrix", "result": found}}

    def counted(request):
        metric = {"service_name": "order-service", "level": "warning", "event": "queue.long"}
        late = float(request.args["time"]) / 1e9 > now - 60 and "warning" in request.args["query"]
        result = [{"metric": metric, "value": [now, "60"]}] if late else []
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    rule = {"name": "TooDeep", "query": "depth > 0.5"}
    apis.odd = {
        "/api/traces?": searched,
        "/api/traces/": lambda asked: {"data": [by_id[asked.path.rpartition("/")[2]]]},
        "?query=depth": measured,
    }
    apis.series = []
    apis.server.expect_request("/api/v1/rules").respond_with_json({"data": {"groups": [{"rules": [rule]}]}})
    apis.server.expect_request("/loki/api/v1/query").respond_with_handler(
        lambda one: Response(json.dumps(counted(one)))
    )
    notes = {"summary": "Customers wait.", "runbook_url": "docs/runbooks/ServiceDown.md"}
    labels = {"alertname": "TooDeep", "job": "order-service"}
    moment = datetime.fromtimestamp(now - 30, UTC).isoformat()
    apis.alerts = [{"labels": labels, "state": "firing", "annotations": notes, "activeAt": moment}]


def test_the_page_why_shows_all_that_the_command_and_the_json_do(page, console, apis, trouble, monkeypatch, capsys):
    for name in ("JAEGER", "LOKI", "PROMETHEUS"):
        monkeypatch.setenv(f"{name}_URL", f"http://127.0.0.1:{apis.server.port}")
    assert cli.main([]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    told = html.unescape(re.sub("<[^>]+>", " ", page("/why?since=2m")))
    shown = " ".join(told.split())
    answer = console().get("/why?json").json
    [cause] = answer["causes"][:1]
    assert (cause["service"], cause["operation"]) == ("order-service", "POST /orders/")
    parts = [answer["causes"][0]["kind"], "A good trace", *(one["event"] for one in answer["lines"])]
    parts += [one["name"] for one in answer["alerts"]] + [one["summary"] for one in answer["alerts"]]
    parts += [row["operation"] for row in answer["pair"]["rows"]]
    sentences = [one for each in answer["causes"] for one in each["because"]] + answer["notes"]
    parts += [re.sub(r"[\d.]+", "#", one["says"]) for one in sentences]
    parts += [re.sub(r"[\d.]+", "#", one["says"]) for one in answer["alerts"]]
    assert len(parts) > 8
    for text in (printed, shown):
        without_numbers = re.sub(r"[\d.]+", "#", text)
        for part in parts:
            assert part in text or part in without_numbers
        for wanted in (
            "It costs users",
            "seconds of waiting per second",
            "depth",
            "/api/traces?service=",
            '| trace_id="',
            "Something is wrong: order-service",
        ):
            assert wanted in text


def test_the_page_why_leads_to_the_pages_that_ask_the_same(page, console, trouble):
    text = page("/why")
    links = {html.unescape(one) for one in re.findall(r'href="(/[^"]*)"', text[text.index('id="state"') :])}
    client = console()
    for link in links:
        assert client.get(link).status_code == 200, link
    for part in (
        "/traces/compare?a=",
        "/traces/?service=",
        "/traces/0",
        "/logs?q=",
        "/runbooks/ServiceDown",
        "/#alerts",
    ):
        assert any(link.startswith(part) for link in links), part
    search = next(link for link in links if link.startswith("/traces/?service="))
    fields = dict(parse_qsl(urlsplit(search).query))
    assert int(fields["to"]) - int(fields["from"]) > 60_000
    assert fields["min"].endswith("us")
    assert "in Prometheus" not in text
    public = console(prometheus_public_url="http://localhost:9090").get("/why").text
    assert 'href="http://localhost:9090/graph?g0.expr=depth' in public


def test_without_any_backend_why_says_what_to_do(console):
    dead = dict.fromkeys(("gateway_url", "jaeger_url", "loki_url", "prometheus_url"), "http://127.0.0.1:9")
    answer = console(**dead).get("/why")
    assert answer.status_code == 502
    assert "make status" in answer.text


ODD = [[], {}, {"data": None}, {"data": {"resultType": "vector", "result": [{"metric": {}, "value": ["x", {}]}]}}]
ODD += [
    {"data": [{"spans": 7}]},
    {"data": {"alerts": [{"state": None}], "result": 3}},
    {"items": [{"id": 7}]},
    "text",
    0,
]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("path", ["/", "/orders/", "/traces/", "/logs", "/dashboards/", "/dashboards/order-path"])
def test_an_answer_of_another_form_is_told_on_the_page_that_asked(page, apis, path, odd):
    apis.odd = {"/api/": odd, "/loki/": odd, "/orders/": odd, "/products/": odd}
    text = page(path)
    assert "<h1>" in text
    assert "This page has a fault" not in text
    assert 'class="notice bad"' in text or 'class="empty"' in text


@pytest.mark.parametrize(
    ("path", "api", "left"),
    [
        ("/orders/7", "/api/traces", "Stoneware mug"),
        ("/orders/7", "/loki/", "INSERT orders"),
        (f"/traces/{TRACE}", "/api/traces", "request.completed"),
        (f"/traces/{TRACE}", "/loki/", "INSERT orders"),
    ],
)
def test_a_story_is_told_as_far_as_the_answers_are_understood(page, apis, path, api, left):
    apis.odd = {api: {"data": [{"spans": 7}]}}
    text = page(path)
    assert "has an unknown form" in text
    assert left in text


def test_one_odd_answer_fails_its_panel_alone(page, apis):
    board = next(one for one in boards()["overview"]["panels"] if one.get("title") == "Services")
    apis.odd = {board["targets"][0]["expr"][:40]: {"data": {"resultType": "vector", "result": [{"odd": 1}]}}}
    panels = page("/dashboards/overview").split('<section class="card panel')[1:]
    failed = [re.search("<h3>(.*?)</h3>", each)[1] for each in panels if 'class="notice bad"' in each]
    assert "Services" in failed
    assert len(failed) < len(panels) / 2
    assert all("unknown form" in each for each in panels if 'class="notice bad"' in each)


def test_what_cannot_be_asked_is_not_said_to_be_well(console):
    dead = dict.fromkeys(("gateway_url", "jaeger_url", "loki_url", "prometheus_url"), "http://127.0.0.1:9")
    for path in ("/", "/orders/", "/traces/", "/logs"):
        text = console(**dead).get(path).text
        assert "Not known" in text
        for calm in ("No alert fires", "is an error", "No order", "No trace", "No line", "Nothing counted", "No calls"):
            assert calm not in text, (path, calm)


def test_a_list_of_orders_asks_who_is_there_too(console):
    answer = console(console_demo_login=False).get("/orders/?status=PAID")
    assert answer.status_code == 401
    assert 'name="password"' in answer.text
    assert 'value="/orders/?status=PAID"' in answer.text


def test_a_chosen_log_line_is_shown_whole_below_its_row(page, apis):
    said = "x" * 300
    apis.lines = [apis.line(2, "order-service", "order.slow", 15, why=said), apis.line(99, "x", "alone.here", 20, n=5)]
    text = page("/orders/7")
    assert said not in text
    for name in ("order.slow", "alone.here"):
        link = re.search(rf'<a class="wrow wlog[^>]*href="([^"#]*)(?:(?!</a>).)*{name}', text, re.DOTALL)[1]
        chosen = page(link.replace("&amp;", "&"))
        assert name in chosen[chosen.index('id="span"') :]
        assert chosen.count('aria-current="true"') == 1
    assert said in page(f"/orders/7?span={2:016x}")


def test_the_time_chosen_is_kept_on_the_way_to_another_page(page):
    menu = page("/logs?from=1795925000000&to=1795926000000&q=x").split("</nav>")[0]
    assert 'href="/traces/?from=1795925000000&amp;to=1795926000000"' in menu
    assert "q=x" not in menu


def test_the_time_chosen_is_kept_by_links_and_by_the_search_box(page, console):
    time = "from=1795925000000&to=1795926000000&back=3h"
    text = page(f"/?{time}")
    for link in re.findall(r'href="(/logs[^"]*|/dashboards/service[^"]*)"', text):
        assert time.replace("&", "&amp;") in link
    found = console().get(f"/find?q=disk&{time}").location
    assert all(each in found for each in time.split("&"))


def test_a_chosen_time_says_which_and_leads_back_without_a_script(page):
    text = page("/logs?from=1795925000000&to=1795926000000&back=3h&q=x")
    assert re.search("11-29 04:03:20 . 11-29 04:20:00 UTC", text)
    assert re.search(r'id="whole" href="/logs\?q=x&amp;range=3h">Back to last 3h<', text)
    assert 'id="whole"' not in page("/logs?range=3h")


def test_a_state_in_a_panel_has_a_word_beside_its_colour(page, apis):
    assert 'class="sign"' not in page("/dashboards/order-path")
    apis.series[0] |= {"value": [START, "1000000"]}
    text = page("/dashboards/order-path")
    numbers = re.findall(r'<div class="(bad|warn)">(.*?)</div>', text)
    assert numbers
    assert all({"bad": "✕ bad", "warn": "! warning"}[state] in told for state, told in numbers)
    cells = [
        cell for uid in boards() for cell in re.findall(r'"cell (bad|warn)">(.*?)</td>', page(f"/dashboards/{uid}"))
    ]
    assert cells
    assert all({"bad": "✕ bad", "warn": "! warning"}[state] in told for state, told in cells)


def test_no_readout_is_told_aloud_before_its_chart_has_the_focus(page):
    lives = re.findall(r'<output class="readout" aria-live="(\w+)"', page("/dashboards/order-path"))
    assert set(lives) == {"off"}


def test_durations_are_asked_for_as_durations(page):
    text = page("/traces/?min=10ms&max=2s")
    assert re.search(
        r'Took at least <input name="min" value="10ms".*\n.*Took at most <input name="max" value="2s"', text
    )


@pytest.mark.parametrize(("ids", "said"), [("id=a", "One was chosen"), ("id=a&id=b&id=c", "3 traces were chosen")])
def test_a_comparison_without_a_script_says_that_it_wants_two(page, ids, said):
    assert said in page(f"/traces/compare?{ids}")


def test_two_traces_are_compared_by_a_form_without_a_script(page):
    assert "the second took" in page(f"/traces/compare?id={TRACE}&id={TRACE}")


def test_a_query_of_prometheus_leads_there_where_it_has_pages(page, console):
    assert "in Prometheus" not in page("/dashboards/")
    text = console(prometheus_public_url="http://localhost:9090").get("/dashboards/").text
    assert 'href="http://localhost:9090/graph?g0.expr=' in text


@pytest.mark.parametrize("uid", boards())
def test_each_committed_panel_is_drawn_or_says_that_it_has_nothing(page, uid):
    text = page(f"/dashboards/{uid}")
    panels = [one for one in boards()[uid]["panels"] if one["type"] != "row"]
    kinds = re.findall(r'data-kind="(\w+)"', text)
    assert len(kinds) == len(panels)
    assert "none" not in kinds
    assert "cannot draw" not in text


def test_a_kind_of_panel_that_cannot_be_drawn_is_said_to_be_so(page, monkeypatch):
    monkeypatch.setattr("observability.console.dashboards._KINDS", {})
    assert "The console cannot draw this kind of panel" in page("/dashboards/load")


def test_an_address_of_grafana_leads_to_the_same_here(console):
    assert console().get("/d/service?var-service=nginx").location == "/dashboards/service?var-service=nginx"
    assert console().get("/d/runbook-ServiceDown").location == "/runbooks/ServiceDown"
    assert console().get("/d/runbook-none").location == "/runbooks/README"


@pytest.mark.parametrize("name", sorted(path.stem for path in RUNBOOKS.glob("*.md")))
def test_each_runbook_is_a_page_whose_links_lead_somewhere(console, page, name):
    client = console()
    for link in re.findall(r'href="(/[^"#]*)', page(f"/runbooks/{name}")):
        if link.startswith(("/runbooks", "/d/")):
            assert client.get(link).status_code in {200, 302}, link


def test_a_trace_leads_to_jaeger_by_the_address_that_the_browser_can_reach(console, apis):
    text = console(jaeger_public_url="http://localhost:16999", jaeger_ui=True).get(f"/traces/{TRACE}").text
    assert f'href="http://localhost:16999/trace/{TRACE}"' in text
    assert f"curl http://localhost:16999/api/traces/{TRACE}" in text
    assert f":{apis.server.port}" not in text


def test_an_alert_leads_to_its_runbook(page, apis):
    labels = {"alertname": "ServiceDown", "severity": "page"}
    apis.alerts = [{"labels": labels, "state": "firing", "annotations": {"summary": "Customers get errors."}}]
    text = page("/")
    assert "Customers get errors." in text
    assert 'href="/runbooks/ServiceDown"' in text


def test_help_is_what_the_docs_say(page):
    text = page("/help")
    assert "A decline." in text
    assert "What the shop promises" in text
    assert "<code>docs/scenarios.md</code>" in text
    assert 'href="/runbooks/scenarios' not in text


@pytest.mark.parametrize("path", ["/logs", "/"])
def test_a_log_line_leads_to_its_trace(page, apis, path):
    apis.lines = [apis.line(2, "order-service", "order.slow", 15), apis.line(0, "x", "a", 20, trace_id="ab" * 16)]
    text = page(path)
    assert f'class="jump" href="/traces/{TRACE}?span={2:016x}"' in text  # its labels name the trace
    assert f'class="jump" href="/traces/{"ab" * 16}?span={0:016x}"' in text  # it does itself


def test_traces_that_are_compared_are_those_that_were_named(page, apis):
    named, older = f"{0xABC:032x}", apis.trace
    newer = {**older, "traceID": named, "spans": [{**each, "traceID": named} for each in older["spans"][:1]]}
    apis.odd = {f"/api/traces/{named}": {"data": [newer]}, "/api/traces?": {"data": [older, newer]}}
    text = page("/traces/compare?a=ABC&b=" + TRACE)
    assert re.findall(r'<h2>(?:First|Second): <a href="/traces/(\w+)"', text) == [named, TRACE]


def test_a_trace_to_compare_that_is_not_there_is_said_to_be_so(page, apis):
    apis.odd = {f"/api/traces/{'0' * 29}abc": {"data": []}}
    assert "There is no trace abc." in page("/traces/compare?a=abc&b=" + TRACE)


def _copied(page, path, tmp_path):
    """What the copied curl command would ask: its words, as the shell that it is pasted into takes them."""
    command = html.unescape(re.search(r'data-copy="(curl [^"]*)"', page(path))[1])
    assert command.isprintable()
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    curl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True)
    flag, url, *words = done.stdout.decode().split("\0")[:-1]
    assert flag == "-G"
    assert set(words[::2]) == {"--data-urlencode"}
    return url, dict(word.split("=", 1) for word in words[1::2])


ODD_WORDS = ["a b", "it's", "a\r\nrm -rf /\n", "\x1b[2J$(id)`id`", "\u202e\\'x"]


@pytest.mark.parametrize("odd", ODD_WORDS, ids=range(len(ODD_WORDS)))
def test_a_copied_command_asks_the_same_wherever_it_is_pasted(console, tmp_path, odd):
    client = console(jaeger_public_url="http://localhost:16999", loki_public_url="http://localhost:3999")

    def get(path):
        return client.get(path).text

    shown = "from=1795925000000&to=1795926000000"
    query = '{a="' + odd + '"}'
    url, fields = _copied(get, f"/logs?q={quote(query)}&{shown}", tmp_path)
    assert url == "http://localhost:3999/loki/api/v1/query_range"
    assert fields == {
        "query": query,
        "start": "1795925000000000000",
        "end": "1795926000000000000",
        "limit": "200",
    }
    url, fields = _copied(get, f"/traces/?service={quote(odd)}&min=5ms&{shown}", tmp_path)
    assert url == "http://localhost:16999/api/traces"
    assert fields == {
        "service": odd,
        "minDuration": "5ms",
        "limit": "20",
        "start": "1795925000000000",
        "end": "1795926000000000",
    }


def _down(status, **problem):
    """What the gateway answers while a service is down: a problem, or its own page."""
    text = json.dumps({"status": status, **problem}) if problem else "<h1>Bad Gateway</h1>"
    return Response(text, status)


DOWN = [
    (_down(502), "<h1>Bad Gateway</h1>"),
    (
        _down(503, title="Service unavailable", detail="order-service does not answer."),
        "order-service does not answer.",
    ),
    (_down(429, title="Too many requests"), "Too many requests"),
    (_down(500, detail=None), "500"),
    (Response("", 504), "504"),
    (Response("null", 200), "200"),
]


@pytest.mark.parametrize(("answer", "reason"), DOWN, ids=lambda one: getattr(one, "status", None))
def test_orders_that_the_shop_does_not_show_are_not_said_to_be_none(page, apis, answer, reason):
    apis.odd = {"/orders/": answer}
    text = html.unescape(page("/orders/"))
    assert "Not known" in text
    assert "No order" not in text
    assert "unknown form" not in text
    assert f"The shop does not show its orders ({answer.status_code})" in text
    assert reason in text[text.index("The shop does not show") :]


@pytest.mark.parametrize(("answer", "reason"), DOWN, ids=lambda one: getattr(one, "status", None))
def test_products_that_the_shop_does_not_show_are_told(page, apis, answer, reason):
    apis.odd = {"/products/": answer}
    text = html.unescape(page("/orders/"))
    assert f"The shop does not show its products ({answer.status_code})" in text
    assert reason in text[text.index("The shop does not show") :]
    assert "#7" in text


@pytest.mark.parametrize(("answer", "reason"), DOWN, ids=lambda one: getattr(one, "status", None))
def test_who_cannot_sign_in_because_of_the_shop_is_told_so(console, apis, answer, reason):
    apis.odd = {"/auth/login": answer}
    client = console()
    text = html.unescape(client.get("/orders/").text)
    assert 'name="password"' not in text
    assert f"The shop lets nobody sign in ({answer.status_code})" in text
    assert reason in text
    tried = client.post("/login", data={"username": "admin", "password": "password"})
    assert tried.status_code == 502
    assert reason in html.unescape(tried.text)


@pytest.mark.parametrize("status", [401, 403])
def test_where_the_demo_login_is_closed_the_console_asks_who_is_there(console, apis, status):
    apis.odd = {"/auth/login": _down(status, detail="No.")}
    answer = console().get("/orders/")
    assert answer.status_code == 401
    assert 'name="password"' in answer.text


def _figures(page):
    """What the service map says of its only edge."""
    text = page("/")
    return re.search(r'<g class="figures.*?</g>', text[text.index('class="map"') :], re.DOTALL)[0]


def test_calls_that_are_not_counted_are_not_said_to_be_quiet(page, apis):
    pair = {"job": "nginx", "peer_service": "order-service"}
    apis.series = [{"metric": {"job": "another"}, "value": [START, "1"], "values": [[START, "1"]]}]
    assert "quiet now" in _figures(page)
    apis.odd = {"/api/v1/query?": Response("down", 503)}
    assert "not known" in _figures(page)
    assert "quiet" not in _figures(page)
    apis.odd, apis.series = {}, [{"metric": pair, "value": [START, "2"], "values": [[START, "2"]]}]
    assert "100 % err" in _figures(page)
    apis.odd = {"http_response_status_code": Response("too slow", 503)}
    assert "errors not known" in _figures(page)
    assert " %" not in _figures(page)


def test_an_order_may_take_longer_than_a_question(console, apis):
    started = time.monotonic()
    apis.odd = {"/orders/": lambda _: time.sleep(3.2) or order(8)}
    assert console().post("/orders/", data={"product_id": 1}).location == "/orders/8"
    assert time.monotonic() - started > 3


def _fields(text, button):
    """What the form with a button sends."""
    form = next(each for each in re.findall(r"<form method=\"post\".*?</form>", text, re.DOTALL) if button in each)
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)"', form))


@pytest.mark.parametrize("path", ["/orders/", "/orders/7"])
def test_a_form_that_is_sent_twice_places_one_order(console, apis, path):
    client, button = console(), "Place another" if path == "/orders/7" else "Place an order"
    form, other = (_fields(client.get(path).text, button) for _ in range(2))
    for sent in (form, form, other, {**form, "quantity": "2"}):
        client.post("/orders/", data=sent)
    first, again, of_another, changed = apis.keys
    assert first == again
    assert len({first, of_another, changed}) == 3


def test_each_order_of_a_burst_has_a_key_of_its_own(console, apis):
    client = console()
    form = _fields(client.get("/orders/").text, "Place a burst")
    for _ in range(2):
        client.post("/orders/", data=form)
    assert len(apis.keys) == 20
    assert len(set(apis.keys)) == 10


def test_an_order_that_was_not_placed_can_be_tried_again_without_placing_it_twice(console, apis):
    client = console()
    form = {"product_id": "5", "quantity": "2", "count": "1", "key": "ab" * 16}
    apis.odd = {"/orders/": _down(503, detail="Try later.")}
    answer = client.post("/orders/", data=form)
    assert answer.status_code == 502
    assert "The shop took no order (503): Try later." in answer.text
    assert _fields(answer.text, "Try again") == form


def test_a_burst_that_is_cut_says_what_was_placed(console, apis):
    numbers = iter(range(8, 17))

    def place_nine(request):
        if request.method == "GET":
            return {"items": [order(8)], "next_cursor": None}
        number = next(numbers, None)
        return order(number) if number else _down(429, detail="Too many requests.")

    apis.odd = {"/orders/": place_nine}
    answer = console().post("/orders/", data={"count": "10", "key": "ab" * 16})
    assert "9 of 10 placed" in answer.text
    assert "Too many requests." in answer.text
    assert all(f'href="/orders/{number}">#{number}</a>' in answer.text for number in range(8, 17))
    assert _fields(answer.text, "Place the rest")["key"] == "ab" * 16
    assert 'id="list"' in answer.text


@pytest.mark.parametrize(("seconds", "said"), [(5, "Still on the way"), (600, "No trace of it is kept any more")])
def test_what_is_missing_of_an_order_is_on_the_way_only_while_it_is_young(page, apis, seconds, said):
    placed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))
    apis.orders, apis.trace, apis.lines = {7: order(created_at=placed)}, None, []
    text = page("/orders/7")
    assert said in text
    assert ("data-live" in text) == (seconds == 5)


def test_what_is_missing_of_an_old_order_is_a_gap(page, apis):
    apis.orders, apis.lines = {7: order(created_at="2026-01-01T00:00:00Z")}, []
    text = page("/orders/7")
    assert "Gaps: the log line of" in text
    assert "Still on the way" not in text


def test_a_trace_of_an_order_says_where_to_sign_in(console):
    text = console(console_demo_login=False).get(f"/traces/{TRACE}?span=x").text
    assert "INSERT orders" in text
    assert f'Please sign in. <a href="/login?after=/traces/{TRACE}?span%3Dx">Sign in</a>' in text


def test_an_answer_that_is_too_large_is_told_and_not_shown(page, apis):
    apis.odd = {"/loki/": {"data": {"resultType": "streams", "result": [], "more": "x" * (8 << 20)}}}
    text = page("/logs")
    assert "Loki&#39;s answer is larger than 8 MiB, too large to show" in text
    assert "Not known" in text


def test_who_hangs_is_asked_once_and_the_rest_of_the_page_is_there(page, apis):
    hangs = threading.Event()
    apis.odd = {"/loki/": apis._loki, "/api/v1/": lambda _: hangs.wait(20) and {}}
    try:
        started = time.monotonic()
        text = page("/")
        assert time.monotonic() - started < 6
    finally:
        hangs.set()
    assert text.count("Prometheus&#39;s API at") == 1
    assert "order.created" in text  # what Loki says


def test_all_that_a_page_asks_has_one_deadline(page, apis, monkeypatch):
    monkeypatch.setattr("observability.console.app._PAGE_SECONDS", 1.0)
    apis.odd = {"/api/": lambda _: time.sleep(0.7) or {"status": "success", "data": []}}
    started = time.monotonic()
    text = page("/")
    assert time.monotonic() - started < 3
    assert "was not asked: others took all the time that a page has" in text
    apis.odd = {}
    assert "Not all could be asked" not in page("/")


def test_an_answer_that_drips_ends_at_the_deadline(page, apis, monkeypatch):
    monkeypatch.setattr("observability.console.app._PAGE_SECONDS", 1.0)
    apis.odd = {"/loki/": lambda _: Response((time.sleep(0.2) or " " for _ in range(50)), direct_passthrough=True)}
    started = time.monotonic()
    assert "Loki&#39;s API at" in page("/logs")
    assert time.monotonic() - started < 4


def test_traces_of_later_orders_do_not_take_the_place_of_a_pages_own(page, apis):
    asked = []
    apis.odd = {"/api/traces": lambda request: asked.append(request.args) or {"data": [apis.trace]}}
    assert "99 ms" not in page("/orders/")
    newest = int(START) * 1e6
    assert newest <= int(asked[0]["end"]) <= newest + 5e6
    assert int(asked[0]["start"]) < newest - 10e6


def test_bars_ask_once(page, apis):
    (query,) = {
        target["expr"]
        for board in boards().values()
        for panel in board["panels"]
        if panel["type"] == "bargauge"
        for target in panel["targets"][:1]
    }
    asked = []
    apis.odd = {query[:30]: lambda request: asked.append(request.args["query"]) or apis._prometheus(request)}
    for uid in boards():
        page(f"/dashboards/{uid}")
    assert asked
    assert len(asked) == len(set(asked))


def test_a_token_that_expired_is_renewed_once_for_all(console_app, apis):
    app, late = console_app(), itertools.count()
    app.extensions["apis"].orders._token = "expired"

    def refuse_some_late(request):
        if request.headers["Authorization"] == "Bearer expired":
            time.sleep(0.1 * next(late))
        return apis._orders(request)

    apis.odd = {"/orders/": refuse_some_late}
    app.test_client().post("/orders/", data={"count": "10"})
    assert len(apis.placed) == 10
    assert len(apis.logins) == 1


def test_an_exemplar_is_in_the_bucket_of_its_own_value(page, apis):
    apis.series = [
        {"metric": {"le": le}, "value": [START, "1"], "values": [[START, value]]}
        for le, value in (("0.01", "1"), ("0.5", "2"), ("1", "3"), ("+Inf", "3"))
    ]
    exemplars = [
        {"labels": {"trace_id": "no-id!"}, "value": "0.009", "timestamp": START + 2},
        {"labels": {"trace_id": TRACE}, "value": "0.3", "timestamp": START},
    ]
    apis.odd = {"query_exemplars": {"status": "success", "data": [{"exemplars": exemplars}]}}
    text = page("/dashboards/order-path")
    heat = text[text.index('class="chart heat"') :]
    (at,) = re.findall(
        r'class="dot"[^>]*>(?:<title>[^<]*</title>)<path d="M[\d.]+ ([\d.]+)h', heat[: heat.index("</svg>")]
    )
    assert float(at) == pytest.approx(50)


def test_bars_of_what_is_no_number_are_empty(page, apis):
    numbers = iter(("NaN", "2", "1"))
    apis.odd = {
        "round(sum(increase(orders_total": lambda _: {
            "data": {"resultType": "vector", "result": [{"metric": {}, "value": [START, next(numbers)]}]}
        }
    }
    text = page("/dashboards/order-path")
    bars = text[text.index('class="hbars"') :].split("</section>")[0]
    assert re.findall(r'class="value" width="([^"]*)"', bars) == ["0.0", "100.0", "50.0"]


def test_durations_that_are_not_known_are_not_said_to_be_none(page, apis):
    apis.odd = {"/api/traces": Response("down", 503)}
    text = page("/orders/")
    assert "#7" in text
    assert "no trace" not in text
    assert "not known" in text
    text = page("/orders/?slower=100")
    assert "Not known" in text
    assert "No order here" not in text


def test_a_budget_that_is_not_known_is_not_said_to_be_uncounted(page, apis):
    apis.odd = {"error_budget_remaining": Response("down", 503)}
    text = page("/")
    assert "nothing counted" not in text
    assert "not known" in text[text.index('id="slos"') :].split("</section>")[0]


@pytest.mark.parametrize(("path", "api"), [("/logs", "Loki"), ("/traces/", "Jaeger"), ("/dashboards/", "Prometheus")])
def test_an_api_that_is_down_is_not_said_to_refuse_the_question(page, apis, path, api):
    apis.odd = {"/loki/": Response("", 503), "/api/": Response("", 503)}
    text = page(path)
    assert "does not take this" not in text
    assert re.search(rf"{api}&#39;s API at http://127.0.0.1:\d+ answers 503: no reason is given", text)
    assert "0 lines" not in text


def test_a_trace_that_jaeger_could_not_give_has_no_gaps(page, apis):
    apis.odd = {"/api/traces": Response("down", 503)}
    text = page(f"/traces/{TRACE}")
    assert "request.completed" in text
    assert "Gaps" not in text
    assert "No spans" not in text


def test_a_line_of_a_dashboard_leads_to_the_trace_that_it_names_itself(page, apis):
    apis.lines = [apis.line(0, "x", "a", 20, trace_id="ab" * 16)]
    uid = next(uid for uid, board in boards().items() if any(panel["type"] == "logs" for panel in board["panels"]))
    assert f'class="jump" href="/traces/{"ab" * 16}"' in page(f"/dashboards/{uid}")
