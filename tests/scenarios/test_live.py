"""All scenarios on a real local stack, one after the other, as `make scenarios` runs them."""

import os

import pytest

from scenarios import describing, finding, telling
from scenarios.running import in_turn
from tests.fixtures.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

NAMES = os.environ.get("SCENARIOS", "").split() or describing.names()
"""All, or those that somebody wants to see: `SCENARIOS="payment-slow clock-off" pytest tests/scenarios -m slow`."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Each scenario's outcome and report, by its name; the table of all is left beside the stack's folder."""
    folder = tmp_path_factory.mktemp("scenarios")
    stack = LocalStack(folder / "run", CLIENT_CONNECTIONS="10000")
    report, done = [], {}

    def say(line):
        report.append(line)
        print(line, flush=True)

    stack.up()
    try:
        where = finding.find({**os.environ, "RUN_DIR": str(stack.run_dir)})
        for outcome in in_turn(map(describing.read, NAMES), where, say):
            say(telling.verdict(outcome))
            done[outcome.scenario.name] = outcome, "\n".join(report)
            report.clear()
        telling.write_markdown(str(folder / "scenarios.md"), [outcome for outcome, _ in done.values()])
        yield done
    finally:
        stack.down()


@pytest.mark.parametrize("name", NAMES)
def test_users_feel_it_all_expected_signals_show_and_all_is_well_again(outcomes, name):
    outcome, report = outcomes[name]
    assert outcome.ok, report


def test_each_alert_is_raised_by_a_fault_and_was_not_on_before(outcomes):
    """What docs/scenarios.md says of alerts about budgets, too: in a new stack none is on when its scenario begins."""
    checks = [check for outcome, _ in outcomes.values() for check in outcome.of("alert")]
    assert {check.what for check in checks if check.kept} == {check.what for check in checks}
