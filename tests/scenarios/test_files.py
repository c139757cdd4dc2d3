"""Each scenario's file: what it names has to be there."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from observability.contract import load
from scenarios import acting, asking, describing, flags
from scenarios.describing import Fault, Freeze, Replica, Restart, Scribble
from scenarios.errors import ScenarioError

PROJECT = Path(__file__).parents[2]
RULES = sorted((PROJECT / "observability/prometheus/rules").glob("*.yml"))
ALERTS = {
    rule["alert"]
    for file in RULES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
PARTS = {
    *("auth-service", "user-service", "product-service", "order-service", "payment-service"),
    *("nginx", "order-db", "embedded-backend", "gateway-telemetry"),
}
ALL = {name: describing.read(name) for name in describing.names()}


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def scenario(request):
    return request.param


@pytest.fixture(scope="module")
def contract():
    return load()


def test_there_are_25_scenarios_and_more_in_six_kinds():
    assert len(ALL) >= 25
    assert {scenario.kind for scenario in ALL.values()} == {
        *("latency", "errors", "resources", "network", "deployment", "telemetry")
    }


def test_what_it_switches_can_be_switched(scenario):
    switch = scenario.switch
    known = {flag.name: flag for flag in flags.read(flags.DEFAULT)}
    if isinstance(switch, Fault | Restart | Replica) and switch.fault is not None:
        assert switch.fault in known
        assert switch.to in {"on", *known[switch.fault].variants}
    part = {Restart: "restart", Freeze: "freeze", Replica: "replica", Scribble: "scribble"}.get(type(switch))
    if part is not None:
        assert getattr(switch, part) in PARTS


def test_each_fault_has_a_scenario():
    used = {getattr(scenario.switch, "fault", None) for scenario in ALL.values()}
    assert {flag.name for flag in flags.read(flags.DEFAULT)} == used - {None}


def test_its_alerts_exist_and_none_is_promised_and_to_be_silent(scenario):
    promised, silent = set(scenario.signals.alerts), set(scenario.silent)
    assert promised | silent <= ALERTS
    assert not promised & silent
    assert silent


def test_its_panels_exist_and_ask_prometheus(scenario):
    for panel in scenario.signals.panels:
        assert asking.expressions(panel.dashboard, panel.title, scenario.truth.service), panel


def test_its_spans_and_log_events_are_in_the_contract(scenario, contract):
    spans = {(service, name) for service, _, name in contract.spans}
    for trace in scenario.signals.traces:
        assert (trace.service, trace.operation) in spans
    for log in scenario.signals.logs:
        assert (log.service, log.event) in contract.events


def test_a_signal_shows_the_fault_and_not_its_switch(scenario):
    signals = scenario.signals
    promised = [*signals.metrics, *(name for trace in signals.traces for name in trace.attributes)]
    promised += [log.event for log in signals.logs]
    promised += [
        expression
        for panel in signals.panels
        for expression in asking.expressions(panel.dashboard, panel.title, scenario.truth.service)
    ]
    assert not [each for each in promised if re.search(r"simulated_|feature_flag|flags\.", each)]


def test_a_span_that_is_expected_differs_from_those_without_the_fault(scenario):
    for trace in scenario.signals.traces:
        assert trace.over or trace.ahead or trace.attributes, trace


def test_what_users_feel_is_not_measured_by_an_expected_signal(scenario):
    def metrics(expression):
        return set(re.findall(r"[a-z_]+(?=[{\[])", expression))

    if scenario.effect.query is not None:
        assert not metrics(scenario.effect.query) & {
            name for each in scenario.signals.metrics for name in metrics(each)
        }


def test_what_runs_in_compose_expects_no_metric_of_the_embedded_backend(scenario):
    if not acting.needs_stack(scenario.switch):
        assert "embedded" not in " ".join([*scenario.signals.metrics, scenario.effect.query or ""])


def test_its_truth_is_in_the_words_of_the_contract(scenario, contract):
    truth = scenario.truth
    assert truth.service in PARTS
    if truth.operation is not None:
        # The database has no spans of its own: what is asked of it is named as who asks does.
        asks = {"order-service" if truth.service == "order-db" else truth.service}
        assert asks & {service for service, _, name in contract.spans if name == truth.operation}


def test_its_runbook_exists(scenario):
    if scenario.runbook is not None:
        assert (PROJECT / "docs/runbooks" / f"{scenario.runbook}.md").exists()


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", PROJECT / "docs/scenarios.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_each_alert_is_proven_by_a_scenario_or_by_another_test(pages):
    proven = {alert for scenario in ALL.values() for alert in scenario.signals.alerts}
    assert pages.alert_names() == ALERTS
    assert proven | pages.ELSEWHERE.keys() == ALERTS
    assert not proven & pages.ELSEWHERE.keys()
    for alert, test in pages.ELSEWHERE.items():
        text = (PROJECT / test).read_text()
        assert f'act("{alert}"' in text or re.search(rf'^UNSEEN = .*"{alert}"', text, re.MULTILINE)


RUNBOOKS = sorted(page for page in (PROJECT / "docs/runbooks").glob("*.md") if page.stem != "README")


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_says_how_to_practise_it_and_to_ask_why_where_that_helps(page, pages):
    text = page.read_text()
    named = set(re.findall(r"make scenario NAME=([\w-]+)", text))
    assert named == {scenario.name for scenario in ALL.values() if page.stem in scenario.signals.alerts}
    assert named or page.stem in pages.ELSEWHERE
    helps = page.stem not in {"NoTraffic", "TelemetryDown"}  # without traffic, or without what it asks, it sees little
    assert ("`make why`" in text) == helps


def test_the_page_has_the_tables_of_all_scenarios_and_alerts(pages):
    page = (PROJECT / "docs/scenarios.md").read_text()
    assert pages.updated(page) == page, "run `make docs`"
    silent = [scenario for scenario in ALL.values() if not scenario.signals.alerts]
    assert page.count("| none |") == len(silent)
    assert all(f"- `{scenario.name}`: {scenario.no_alert}\n" in page for scenario in silent)


GOOD = """
kind: latency
teaches: Something.
switch: {fault: payment-slow}
effect: {measure: p95, before: 0.1, during: 0.5, felt: it is slow}
signals: {metrics: [up == 0]}
no_alert: It is a test.
truth: {service: payment-service}
"""


def test_the_smallest_file_that_will_do():
    assert describing.parse("small", GOOD).effect.of.route == "POST /orders/"


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("kind: latency", "kind: slow", "kind"),
        ("fault: payment-slow", "flag: payment-slow", "switch"),
        ("during: 0.5", "during: 0.05", "nobody feels anything"),
        ("measure: p95", "measure: query", "`query` goes with"),
        ("metrics: [up == 0]", "panels: [{dashboard: a, title: b}]", "promise a signal"),
        ("no_alert: It is a test.", "", "no_alert"),
        ("metrics: [up == 0]", "alerts: [ServiceDown]", "no_alert"),
        ("service: payment-service", "services: payment-service", "truth.service"),
        ("teaches: Something.", "teaches: [", "no YAML"),
        ("kind: latency", "kind: latency\nsevere: true", "severe"),
    ],
)
def test_a_file_that_will_not_do_is_refused_and_says_where(right, wrong, says):
    assert right in GOOD
    with pytest.raises(ScenarioError, match=r"scenarios/small\.yaml") as caught:
        describing.parse("small", GOOD.replace(right, wrong))
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "7", "[]"])
def test_a_file_that_is_no_mapping_is_refused(text):
    with pytest.raises(ScenarioError, match="is not valid"):
        describing.parse("small", text)


def test_an_unknown_name_is_told_with_those_that_are_near():
    with pytest.raises(ScenarioError, match="Did you mean payment-slow"):
        describing.read("paymentslow")
    with pytest.raises(ScenarioError, match="lists them"):
        describing.read("../payment-slow")


def test_a_panel_that_is_not_there_asks_nothing():
    assert asking.expressions("order-path", "Nobody's", "order-service") == []
    assert asking.expressions("nobodys", "Locks", "order-service") == []
    assert json.dumps(asking.expressions("database", "Locks", "order-service"))
