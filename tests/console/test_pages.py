"""What each page shows, and what it says when it has nothing to show."""

import re

import pytest

from observability.console.dashboards import boards
from observability.console.overview import RUNBOOKS
from tests.console.conftest import START, TRACE, order


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
    assert f"curl &#39;http://localhost:16999/api/traces/{TRACE}&#39;" in text
    assert f":{apis.server.port}" not in text


def test_an_alert_leads_to_its_runbook(page, apis):
    labels = {"alertname": "ServiceDown", "severity": "page"}
    apis.alerts = [{"labels": labels, "state": "firing", "annotations": {"summary": "Customers get errors."}}]
    text = page("/")
    assert "Customers get errors." in text
    assert 'href="/runbooks/ServiceDown"' in text


def test_help_is_what_the_readme_says(page):
    text = page("/help")
    assert "A decline." in text
    assert "What the shop promises" in text
