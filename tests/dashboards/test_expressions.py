"""What a healthy shop does not show: promtool computes queries from made-up series."""

import subprocess

import pytest
import yaml

from tests.dashboards.asking import EMPTY_WHEN_HEALTHY, FALLBACK
from tests.dashboards.reading import load, of_panels, panels
from tests.fixtures.programs import find_promtool

EXPR = {query.place: query.expr for query in of_panels(load()) if query.source == "prometheus"}
ALERTS, PARTS = "overview: Alerts that fire, A", "overview: Parts, A"
HISTORY = "overview: Alerts, over time, A"
UP = {job: f'up{{job="{job}"}}' for job in ("auth-service", "user-service", "product-service", "payment-service")}
FIRES = 'ALERTS{alertname="ServiceDown", alertstate="firing", severity="page", job="%s"}'
WAITS = 'ALERTS{alertname="ErrorSpike", alertstate="pending", severity="ticket"}'


@pytest.mark.parametrize(
    ("place", "series", "expected"),
    [
        (ALERTS, {UP["auth-service"]: 1}, {'{alertname="none"}': 0}),
        (ALERTS, {WAITS: 1}, {'{alertname="none"}': 0}),
        (
            ALERTS,
            {FIRES % "user-service": 1, FIRES % "auth-service": 1, WAITS: 1, UP["auth-service"]: 0},
            {'{alertname="ServiceDown", severity="page"}': 2},
        ),
        (HISTORY, {WAITS: 1}, {'{alertname="none"}': 0}),
        (
            HISTORY,
            {FIRES % "user-service": 1, FIRES % "auth-service": 1},
            {'{alertname="ServiceDown", severity="page"}': 1},
        ),
        (
            PARTS,  # one answers, one does not, of one a replica does not; order-service is gone
            {
                **{series: 1 for job, series in UP.items() if job != "user-service"},
                UP["user-service"]: 0,
                'up{job="auth-service", instance="2"}': 0,
            },
            {
                '{job="auth-service"}': 0,
                '{job="user-service"}': 0,
                '{job="product-service"}': 1,
                '{job="payment-service"}': 1,
                '{job="order-service"}': 0,
            },
        ),
    ],
)
def test_it_shows(tmp_path, place, series, expected):
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    test = {
        "interval": "5s",
        "input_series": [{"series": name, "values": f"{value}x12"} for name, value in series.items()],
        "promql_expr_test": [{"expr": EXPR[place], "eval_time": "1m", "exp_samples": samples}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = subprocess.run([find_promtool(), "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_may_be_empty_is_there_and_says_so():
    says = {
        f"{uid}: {panel['title']}, {target['refId']}": panel["fieldConfig"]["defaults"].get("noValue")
        or FALLBACK.search(target.get("expr", ""))
        for uid, board in load().items()
        for panel in panels(board)
        for target in panel.get("targets", [])
    }
    for place in EMPTY_WHEN_HEALTHY:
        assert says[place], place


@pytest.mark.parametrize(
    "fallback",
    ["or vector(0)", "or on () vector(0)", 'or on () label_replace(vector(0), "alertname", "none", "", "")'],
)
def test_a_fallback_is_not_taken_for_an_answer(fallback):
    assert FALLBACK.sub("", f"sum by (job) (up) {fallback}") == "sum by (job) (up)"
