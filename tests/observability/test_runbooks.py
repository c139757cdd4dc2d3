"""Each alert has its page, each page its alert; what it tells the reader to ask can be asked."""

import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from observability.embedded.logql.line import Line
from observability.embedded.logql.parse import parse
from observability.embedded.logql.pipeline import compile_stages
from tests.alerts.runbooks import FOLDER, PAGES, SECTIONS, all_blocks, blocks, sections
from tests.fixtures.gateway_telemetry import access_line

PROJECT = Path(__file__).parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text()
ALERTS = {
    rule["alert"]
    for file in (PROJECT / "observability" / "prometheus" / "rules").glob("*.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def test_each_alert_has_its_page_and_each_page_its_alert():
    assert set(PAGES) == ALERTS


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_is_needed_at_three_in_the_morning(name):
    found = sections(name)
    assert list(found) == SECTIONS
    assert all(text.strip() for text in found.values())
    assert "```promql" in found["How to see it"]
    assert "```promql" in found["How to know it is over"] or "```sql" in found["How to know it is over"]
    assert len((FOLDER / f"{name}.md").read_text().splitlines()) < 90


@pytest.mark.parametrize("name", [name for name in PAGES if name.endswith("Burn")])
def test_a_budget_that_burns_is_over_by_its_burn_rate(name):
    over = sections(name)["How to know it is over"]
    assert "burn rate is under 1" in over
    assert re.findall(r"```promql\n(\S+)\{", over) == ["slo:current_burn_rate:ratio"]


@pytest.mark.parametrize("page", [*PAGES, "README"])
def test_where_a_page_leads_to_exists(page):
    text = (FOLDER / f"{page}.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        if found := re.fullmatch(r"http://localhost:3000/d/([\w-]+)", link):
            assert (PROJECT / "observability" / "grafana" / "dashboards" / f"{found[1]}.json").is_file(), link
        elif not link.startswith("http"):
            assert (FOLDER / link).exists(), link
    for target in re.findall(r"\bmake ([a-z][a-z-]+)(?= |`|$)", text):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize(("page", "query"), all_blocks("promql"))
def test_prometheus_would_take_a_query(page, query):
    promql_parser.parse(query)


@pytest.mark.parametrize(("page", "query"), all_blocks("logql"))
def test_the_embedded_backend_would_take_a_query(page, query):
    parse(query)


@pytest.mark.parametrize(
    ("slow", "took"),
    [
        (True, {"duration_s": 0.7, "upstream_duration_s": 0.69, "upstream_tries_s": "0.690"}),
        (True, {"duration_s": 0.7, "upstream_duration_s": 0.02, "upstream_tries_s": "0.670, 0.020"}),
        (True, {"duration_s": 0.7, "upstream_duration_s": 0.3, "upstream_tries_s": "0.390 : 0.300"}),
        (False, {"duration_s": 0.04, "upstream_duration_s": 0.02, "upstream_tries_s": "0.010, 0.020"}),
        (False, {"duration_s": 9.0, "upstream_duration_s": 0.02, "upstream_tries_s": "0.020"}),
    ],
)
def test_the_slow_orders_of_the_log_are_those_whose_tries_are_slow_together(slow, took):
    (query,) = blocks("OrderLatencyBurn", "logql")
    line = Line(0, access_line(**took), {"service_name": "nginx"}, {})
    assert all(step(line) for step in compile_stages(parse(query).stages)) == slow
