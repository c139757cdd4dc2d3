"""What decides whether a run was good, and what the report says of it."""

import json

import pytest

from loadtest import report
from loadtest.limits import held_back, judge, knee
from loadtest.settings import LoadSettings
from loadtest.shapes import Limits


def result(*, count=1000, failures=0, rate=50.0, p95=90, p99=140):
    total = {"method": "", "name": "Aggregated", "count": count, "failures": failures, "rate": rate, "p50": 9}
    order = {"method": "POST", "name": "/orders/", "count": 300, "failures": failures, "rate": 15.0, "p50": 30}
    return {
        "total": total | {"p95": 60, "p99": 100, "max": 200},
        "requests": [order | {"p95": p95, "p99": p99, "max": 200}],
    }


def broken(limits, measured):
    return [verdict.name for verdict in judge(limits, measured) if not verdict.kept]


def test_a_run_within_its_limits_is_good():
    assert broken(Limits(max_failed=0.0, p95_ms=90, p99_ms=140, min_rate=50), result()) == []


@pytest.mark.parametrize(
    ("limits", "measured", "name"),
    [
        (Limits(max_failed=0.001), result(failures=2), "failed requests"),
        (Limits(p95_ms=89), result(), "p95 of orders"),
        (Limits(p99_ms=139), result(), "p99 of orders"),
        (Limits(min_rate=50.1), result(), "requests a second"),
        (Limits(), result(count=0), "requests"),
    ],
)
def test_each_limit_is_broken_by_its_own_number(limits, measured, name):
    assert broken(limits, measured) == [name]


def test_a_limit_of_orders_is_broken_when_none_were_made():
    measured = result() | {"requests": []}
    limits = Limits(p95_ms=90, p99_ms=140)
    assert broken(limits, measured) == ["p95 of orders", "p99 of orders"]
    assert judge(limits, measured)[-1].measured == "no orders were made"


def test_a_mix_without_orders_has_the_limits_of_orders_that_were_asked_for_and_no_others():
    assert LoadSettings(mix="browse=1").plan().limits == Limits()
    assert LoadSettings(mix="browse=1", p99_ms=5).plan().limits == Limits(p99_ms=5)


def test_a_worker_that_was_lost_breaks_the_run():
    assert broken(Limits(), result() | {"workers": {"began": 2, "ended": 2}}) == []
    assert broken(Limits(), result() | {"workers": {"began": 2, "ended": 1}}) == ["load workers"]


def test_without_limits_only_silence_is_bad():
    assert broken(Limits(max_failed=None), result(failures=500, p95=9000)) == []


def stages(*rates):
    return [{"users": 2**index, "rate": rate} for index, rate in enumerate(rates)]


def test_a_run_that_the_gateway_held_back_says_so_and_what_to_do():
    refused = [
        {"method": "POST", "name": "/orders/", "error": "answered with 429 blank", "count": 1200},
        {"method": "GET", "name": "/products/", "error": "answered with 429", "count": 34},
        {"method": "POST", "name": "/orders/", "error": "answered with 503 overloaded", "count": 7},
    ]
    said = held_back({"errors": refused})
    assert "refused 1,234 requests (429)" in said
    assert "CLIENT_CONNECTIONS=" in said
    assert "LOGIN_RATE=" in said
    assert held_back({"errors": refused[2:]}) is None


def test_the_knee_is_where_more_users_bring_no_more_requests():
    assert knee(stages(50, 95, 180, 240, 250, 245)) == 3
    assert knee(stages(50, 240, 250)) == 1


def test_there_is_no_knee_as_long_as_the_rate_grows():
    assert knee(stages(50, 95, 180)) is None
    assert knee([]) is None


def test_the_page_says_what_was_broken_and_shows_nothing_as_markup(tmp_path):
    slow = {"ms": 812.0, "method": "POST", "name": "/orders/", "answer": "201", "at": 1.7e9, "trace_id": "ab" * 16}
    counts = {"told": 5, "by_status": {"PAID": 5}, "settled_late": 0, "unanswered": 0, "unanswered_kept": {}}
    found = {"balanced": False, "wrong": 1, "examples": ["order 7: PAID, and its charges are none"]}
    stage = dict.fromkeys(("users", "rate", "order_rate", "p50", "p95", "p99", "failures"), 1)
    facts = {"shape": "ramp", "users": 4, "seconds": 30.0, "began": 1.7e9, "good": False, "interrupted": False}
    more = {
        "server": None,
        "slow": [slow],
        "knee": None,
        "generator_was_busy": True,
        "notes": ["<i>no view</i>"],
        "generator_cores": 0.5,
    }
    lists = {
        "verdicts": [{"name": "p95 of orders", "limit": "at most 1 ms", "measured": "90 ms", "kept": False}],
        "errors": [{"method": "GET", "name": "/orders/", "error": "<b>answered with 503</b>", "count": 3}],
        "stages": [stage, stage],
    }
    report.write(tmp_path, result() | facts | more | lists | {"books": counts | found})
    page = (tmp_path / "report.html").read_text()
    assert "NOT GOOD: p95 of orders, the books." in page
    assert "<p>&lt;i&gt;no view&lt;/i&gt;</p>" in page
    assert "&lt;b&gt;answered with 503&lt;/b&gt;" in page
    assert f"make story TRACE={'ab' * 16}" in page
    assert "order 7: PAID, and its charges are none" in page
    assert json.loads((tmp_path / "report.json").read_text())["good"] is False
    assert (tmp_path / "requests.csv").read_text().splitlines()[1].startswith("POST,/orders/,300,0,15.0,30,90,140")
