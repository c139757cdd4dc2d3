"""The rules are well-formed for old and new Prometheus, and each is tested; promtool computes what they say."""

import re
import shutil
import subprocess

import pytest
import yaml

from local import debian
from observability.contract import load
from tests.fixtures.programs import find_promtool, has_program
from tests.observability.conftest import OBSERVABILITY

PROMETHEUS = OBSERVABILITY / "prometheus"
FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
RULES = [
    (file, rule) for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for _, rule in RULES if "alert" in rule]
TESTS = {file: yaml.safe_load(file.read_text()) for file in sorted((PROMETHEUS / "tests").glob("*.yml"))}
# What Prometheus and the Collector say about themselves; the shop's own is in the contract.
FOREIGN = {"up"} | {
    f"otelcol_{name}"
    for name in (
        "exporter_send_failed_spans_total",
        "exporter_enqueue_failed_spans_total",
        "exporter_send_failed_log_records_total",
        "exporter_enqueue_failed_log_records_total",
        "receiver_accepted_log_records_total",
        "exporter_queue_size",
        "exporter_queue_capacity",
    )
}


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=90)
    return done.returncode, done.stdout + done.stderr


def ids(rule):
    return rule.get("alert") or rule["record"]


@pytest.mark.parametrize("which", ["the distribution's", *(["the newest"] if has_program("promtool") else [])])
def test_the_rules_are_well_formed_for_old_and_new_prometheus(which):
    if which == "the distribution's":
        if not shutil.which("apt-get"):
            pytest.skip("no apt here")
        promtool = debian.fetch("prometheus", "usr/bin/promtool")
    else:
        promtool = has_program("promtool")
    status, said = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *FILES)
    assert status == 0, said
    assert f"{len(RULES)} rules" in said or said.count("SUCCESS") == len(FILES)


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_the_rules_compute_what_they_say(program, file):
    # Prometheus 3 leaves a range's first moment out, so shares of a few points differ.
    promtool = program("promtool") if file.name == "slo.yml" else find_promtool()
    status, said = run(promtool, "test", "rules", file)
    assert status == 0, said


@pytest.mark.parametrize("name", sorted({rule["record"] for _, rule in RULES if "record" in rule}))
def test_each_recorded_series_is_expected_by_a_test(name):
    expected = [
        sample["labels"]
        for document in TESTS.values()
        for test in document["tests"]
        for query in test.get("promql_expr_test", [])
        for sample in query["exp_samples"]
    ]
    wanted = re.compile(rf'(^|"){re.escape(name)}($|["{{])')
    found = [labels for labels in expected if wanted.search(labels)]
    slos = {rule["labels"]["sloth_slo"] for _, rule in RULES if rule.get("record") == name and "labels" in rule}
    assert found
    assert {slo for slo in slos if any(f'sloth_slo="{slo}"' in labels for labels in found)} == slos


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_each_alert_is_tested_to_be_silent_to_fire_and_to_resolve(alert):
    cases = []
    for document in TESTS.values():
        for test in document["tests"]:
            case = ""
            here = [one for one in test.get("alert_rule_test", []) if one["alertname"] == alert["alert"]]
            for one in sorted(here, key=lambda one: seconds(one["eval_time"])):
                firing = [
                    expected
                    for expected in one["exp_alerts"]
                    if expected["exp_labels"]["severity"] == alert["labels"]["severity"]
                ]
                case += "F" if firing else "-"
            cases.append(case)
    if "sloth_severity" in alert["labels"]:  # that they all resolve is one query for all of them
        assert any("-F" in case for case in cases), cases
        assert 'ALERTS{severity=~"page|ticket"}' in (PROMETHEUS / "tests" / "slo.yml").read_text()
    else:
        assert any(re.search("-F+-", case) for case in cases), cases


def seconds(duration):
    return sum(
        int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", duration)
    )


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_says_how_urgent_it_is_what_users_feel_and_what_to_do(alert):
    annotations = alert["annotations"]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "description", "runbook_url", "dashboard_url"} <= set(annotations)
    assert annotations["summary"].startswith("Customer")
    assert annotations["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    assert (OBSERVABILITY.parent / annotations["runbook_url"]).is_file()


@pytest.mark.parametrize("url", sorted({alert["annotations"]["dashboard_url"] for alert in ALERTS}))
def test_a_dashboard_that_an_alert_links_to_exists(url):
    uid = re.fullmatch(r"http://localhost:3000/d/([\w-]+)(\?var-\w+=.+)?", url)[1]
    assert (OBSERVABILITY / "grafana" / "dashboards" / f"{uid}.json").is_file()


def test_rules_ask_for_nothing_that_nobody_emits():
    contract = load()
    known = {metric.name for metric in contract.metrics.values()} | FOREIGN
    known |= {f"{metric.name}_{part}" for metric in contract.metrics.values() for part in ("bucket", "count", "sum")}
    known |= {rule["record"] for _, rule in RULES if "record" in rule}
    for _, rule in RULES:
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", rule["expr"])
        bare = re.sub(r"\b(by|on|ignoring|without|group_left)\s*\([^)]*\)|\{[^}]*\}", " ", bare)
        names = {name for name in re.findall(r"[a-zA-Z_:][\w:]*", bare) if "_" in name or name == "up"}
        functions = {
            "histogram_quantile",
            "count_over_time",
            "max_over_time",
            "sum_over_time",
            "avg_over_time",
            "group_left",
        }
        assert names - functions <= known, ids(rule)
