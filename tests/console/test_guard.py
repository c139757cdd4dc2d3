"""Other web pages stay out, and the text of others stays text."""

import gzip
import re

import pytest

from tests.console.conftest import TRACE, order, span, trace

PAGES = ["/", "/orders/", "/orders/7", "/traces/", f"/traces/{TRACE}", "/logs", "/dashboards/", "/dashboards/service"]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}\x1b[2J\u202egnp.exe"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "console.example:3000", "a b"])
def test_a_host_that_is_not_ours_is_refused(console, host):
    assert console().get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "console"])
def test_our_own_names_are_answered(console, host):
    assert console().get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_cannot_place_an_order(console, apis, headers):
    answer = console().post("/orders/", data={"product_id": 1}, headers={"Host": "localhost:3000", **headers})
    assert answer.status_code == 403
    assert not apis.placed


def test_our_own_page_can(console, apis):
    headers = {"Host": "localhost:3000", "Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-origin"}
    answer = console().post("/orders/", data={"product_id": 5, "quantity": 2}, headers=headers)
    assert (answer.status_code, answer.location) == (303, "/orders/8")
    assert apis.placed == [{"product_id": 5, "quantity": 2}]


@pytest.mark.parametrize("path", [*PAGES, "/static/console.js", "/nowhere"])
def test_each_answer_forbids_what_is_not_our_own(console, path):
    with console().get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", PAGES)
def test_no_page_needs_what_the_policy_forbids(page, path):
    text = page(path)
    assert not re.search(r"<[^>]*\s(style|on\w+)=", text)
    assert "<style" not in text
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.search(r'(src|href|action)="(https?:)?//', text)


@pytest.mark.parametrize("path", [*PAGES, "/traces/compare?a=" + TRACE + "&b=" + TRACE])
def test_hostile_text_is_inert_wherever_it_stands(page, apis, path):
    hostile = trace(
        span(1, 0, HOSTILE, HOSTILE, 0, 99, shop__order__id=7, **{HOSTILE: HOSTILE}),
        span(2, 1, HOSTILE, HOSTILE * 1000, 1, 9, big="<b>" * 300_000),
    )
    apis.trace = hostile
    apis.orders = {7: order(status=HOSTILE, product={"name": HOSTILE, "currency": HOSTILE, "unit_price_minor": 1})}
    apis.lines = [apis.line(1, HOSTILE, HOSTILE, 5, **{HOSTILE: HOSTILE}), ("1", HOSTILE)]
    apis.series = [{"metric": {"job": HOSTILE, "peer_service": HOSTILE}, "value": [1, "1"], "values": [[1, "1"]]}]
    labels = {"alertname": HOSTILE, "severity": HOSTILE}
    apis.alerts = [{"labels": labels, "state": "firing", "annotations": {"summary": HOSTILE}}]
    apis.calls = [{"parent": HOSTILE, "child": "order-service", "callCount": 1}]
    text = page(path)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "49" not in re.findall(r"`(\d+)", text)
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    "path", [f"/traces/{TRACE}'", "/traces/<b>", "/runbooks/..%2fREADME", "/runbooks/../../README"]
)
def test_a_path_is_no_way_to_anything_else(console, path):
    answer = console().get(path)
    assert answer.status_code == 404
    assert "<b>" not in answer.text


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_leads_nowhere_else(console, after):
    data = {"username": "admin", "password": "password", "after": after}
    assert console().post("/login", data=data).location == "/"


def test_long_answers_are_packed_for_who_takes_that(console):
    answer = console().get("/logs", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"<!doctype html>" in gzip.decompress(answer.data)
    assert "Content-Encoding" not in console().get("/logs").headers
