"""What each page shows, and what it says when it has nothing to show."""

import re

import pytest

from observability.console.dashboards import boards
from observability.console.overview import RUNBOOKS
from tests.console.conftest import TRACE, order


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
