"""The SLOs' rules are those of their declaration, look at the windows of their names, and are what Sloth makes."""

import re
import runpy

import pytest
import yaml

from tests.observability.conftest import OBSERVABILITY

FOLDER = OBSERVABILITY / "slo"
GENERATE = runpy.run_path(str(FOLDER / "generate.py"))
SLOS = yaml.safe_load((FOLDER / "shop.yaml").read_text())["slos"]
WINDOWS = yaml.safe_load((FOLDER / "windows-7d.yaml").read_text())
RULES = [rule for group in yaml.safe_load(GENERATE["file"]())["groups"] for rule in group["rules"]]

# What Sloth's documentation shows that it makes of its example (https://sloth.dev/examples/default/getting-started/):
# an SLO of 99.9 % over 30 days, with the windows of Google's workbook.
EXAMPLE = {
    "version": "prometheus/v1",
    "service": "myservice",
    "labels": {"owner": "myteam"},
    "slos": [
        {
            "name": "requests-availability",
            "objective": 99.9,
            "sli": {
                "events": {
                    "error_query": 'sum(rate(requests{code=~"(5..|429)"}[{{.window}}]))',
                    "total_query": "sum(rate(requests[{{.window}}]))",
                }
            },
            "alerting": {
                "name": "MyServiceHighErrorRate",
                "labels": {"category": "availability"},
                "annotations": {"summary": "High error rate on 'myservice' requests responses"},
                "page_alert": {"labels": {"severity": "pageteam"}},
                "ticket_alert": {"labels": {"severity": "slack"}},
            },
        }
    ],
}
GOOGLE = {
    "spec": {
        "sloPeriod": "30d",
        "page": {
            "quick": {"errorBudgetPercent": 2, "shortWindow": "5m", "longWindow": "1h"},
            "slow": {"errorBudgetPercent": 5, "shortWindow": "30m", "longWindow": "6h"},
        },
        "ticket": {
            "quick": {"errorBudgetPercent": 10, "shortWindow": "2h", "longWindow": "1d"},
            "slow": {"errorBudgetPercent": 10, "shortWindow": "6h", "longWindow": "3d"},
        },
    }
}
ID = 'sloth_id="myservice-requests-availability", sloth_service="myservice", sloth_slo="requests-availability"'
LABELS = {
    "owner": "myteam",
    "sloth_id": "myservice-requests-availability",
    "sloth_service": "myservice",
    "sloth_slo": "requests-availability",
}


def test_the_rules_are_those_of_the_declaration():
    assert GENERATE["RULES"].read_text() == GENERATE["file"](), "run `make slo`"


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if "sloth_window" in rule.get("labels", {})], ids=lambda rule: rule["record"]
)
def test_a_ratio_looks_at_the_window_of_its_name(rule):
    window = rule["labels"]["sloth_window"]
    assert rule["record"] == f"slo:sli_error:ratio_rate{window}"
    assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {window}


@pytest.mark.parametrize("slo", SLOS, ids=lambda slo: slo["name"])
def test_an_alert_tells_what_may_be(slo):
    budget = f"{100 - slo['objective']:.3g}%"
    assert budget in slo["alerting"]["annotations"]["description"]
    assert slo["description"]


def test_the_windows_are_those_that_sloths_documentation_gives_for_seven_days():
    assert WINDOWS == {
        "apiVersion": "sloth.slok.dev/v1",
        "kind": "AlertWindows",
        "spec": {
            "sloPeriod": "7d",
            "page": {
                "quick": {"errorBudgetPercent": 8, "shortWindow": "5m", "longWindow": "1h"},
                "slow": {"errorBudgetPercent": 12.5, "shortWindow": "30m", "longWindow": "6h"},
            },
            "ticket": {
                "quick": {"errorBudgetPercent": 20, "shortWindow": "2h", "longWindow": "1d"},
                "slow": {"errorBudgetPercent": 42, "shortWindow": "6h", "longWindow": "3d"},
            },
        },
    }
    pages = [rule["expr"] for rule in RULES if rule.get("alert") == "OrderAvailabilityBurn"]
    assert re.findall(r"> \((\S+) \* 0.005\)", "".join(pages)) == [
        *("13.44", "13.44", "3.5", "3.5"),
        *("1.4", "1.4", "0.98", "0.98"),
    ]


@pytest.mark.parametrize("file", ["prometheus.yml", "light.yml"])
def test_prometheus_remembers_longer_than_the_slos_look_back(file):
    configured = yaml.safe_load((OBSERVABILITY / "prometheus" / file).read_text())
    remembered = configured["storage"]["tsdb"]["retention"]["time"]
    local = re.search(r"retention\.time=(\w+)", (OBSERVABILITY.parent / "local" / "prometheus.py").read_text())[1]
    period = GENERATE["_seconds"](WINDOWS["spec"]["sloPeriod"])
    assert all(GENERATE["_seconds"](time) >= 2 * period for time in (remembered, local))


def test_what_sloths_documentation_shows_is_made_of_its_example():
    ratios, metadata, alerts = GENERATE["rules"](EXAMPLE, GOOGLE)["groups"]
    assert [group["name"] for group in (ratios, metadata, alerts)] == [
        f"sloth-slo-{kind}-myservice-requests-availability" for kind in ("sli-recordings", "meta-recordings", "alerts")
    ]
    assert [rule["record"] for rule in ratios["rules"]] == [
        f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    ]
    assert ratios["rules"][0] == {
        "record": "slo:sli_error:ratio_rate5m",
        "expr": '(sum(rate(requests{code=~"(5..|429)"}[5m])))\n/\n(sum(rate(requests[5m])))',
        "labels": {**LABELS, "sloth_window": "5m"},
    }
    assert {rule["record"]: " ".join(rule["expr"].split()) for rule in metadata["rules"]} == {
        "slo:objective:ratio": "vector(0.999)",
        "slo:error_budget:ratio": "vector(1-0.999)",
        "slo:time_period:days": "vector(30)",
        "slo:current_burn_rate:ratio": (
            f"slo:sli_error:ratio_rate5m{{{ID}}} / on(sloth_id, sloth_slo, sloth_service) group_left"
            f" slo:error_budget:ratio{{{ID}}}"
        ),
        "slo:period_burn_rate:ratio": (
            f"slo:sli_error:ratio_rate30d{{{ID}}} / on(sloth_id, sloth_slo, sloth_service) group_left"
            f" slo:error_budget:ratio{{{ID}}}"
        ),
        "slo:period_error_budget_remaining:ratio": f"1 - slo:period_burn_rate:ratio{{{ID}}}",
        "sloth_slo_info": "vector(1)",
    }
    assert all(rule["labels"].items() >= LABELS.items() for rule in metadata["rules"])

    def over(window, factor):
        return f"max(slo:sli_error:ratio_rate{window}{{{ID}}} > ({factor} * 0.001)) without (sloth_window)"

    def pair(short, long, factor):
        return f"( {over(short, factor)} and {over(long, factor)} )"

    page, ticket = alerts["rules"]
    assert " ".join(page["expr"].split()) == f"{pair('5m', '1h', 14.4)} or {pair('30m', '6h', 6)}"
    assert " ".join(ticket["expr"].split()) == f"{pair('2h', '1d', 3)} or {pair('6h', '3d', 1)}"
    assert page["alert"] == ticket["alert"] == "MyServiceHighErrorRate"
    assert page["labels"] == {"category": "availability", "severity": "pageteam", "sloth_severity": "page"}
    assert page["annotations"] == {
        "summary": "High error rate on 'myservice' requests responses",
        "title": ("(page) {{$labels.sloth_service}} {{$labels.sloth_slo}} SLO error budget burn rate is too fast."),
    }
