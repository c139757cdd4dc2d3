"""The runner, against a small shop whose only fault is that it does not get orders paid."""

import itertools
import json
import re
import threading
import time
from datetime import UTC, datetime

import pytest
from werkzeug import Response

from local import rundir
from scenarios import acting, describing, flags, running, telling
from scenarios.errors import ScenarioError
from scenarios.measuring import Felt
from scenarios.outcome import BEFORE
from scenarios.place import Place
from scenarios.running import Run
from scenarios.shopping import Customers

FAULT = "payment-down"
TRACE = "1" * 32
SCENARIO = """
kind: errors
teaches: Something.
switch: {fault: payment-down}
load: {orders: 40, customers: 4}
effect: {measure: pending, before: 0.02, during: 0.9, felt: orders are not paid}
signals:
  alerts: [PaymentOutage]
  traces: [{service: payment-service, operation: decide charge, over: 0.1, attributes: {error.type: ProcessorDown}}]
  logs: [{service: order-service, event: order.left_pending, least: 2}]
  metrics: [rate(payments_total) > 1]
  panels: [{dashboard: database, title: Locks}]
silent: [ServiceDown]
truth: {service: payment-service}
patience: 4
"""


class World:
    """The shop and its telemetry.

    Attributes:
        hurts: Whether users feel the fault.
        shows: Which signals show it.
        sticks: Whether it stays when the fault is off.
        noisy: Which alerts come with the fault beside the promised one.
        always: Which alerts are there all the time.
        asked: The paths that were asked for.
        hurts_for: How many orders feel the fault, if not all.
        empty: Whether panels show nothing while the fault is on.
    """

    def __init__(self, server, path):
        self.path = path
        self.hurts, self.sticks = True, False
        self.shows = {"alert", "trace", "log", "metric", "panel"}
        self.noisy, self.always = set(), set()
        self.hurts_for, self.empty = None, False
        self.down = False
        self.asked = set()
        self._was_on = False
        self.since, self.registered = {}, []
        self._orders = itertools.count(1)
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)
        self.place = Place(path, *(server.root,) * 4, None)

    @property
    def on(self):
        state = next(flag.state for flag in flags.read(self.path) if flag.name == FAULT)
        self._was_on |= state != flags.OFF
        return state != flags.OFF or (self.sticks and self._was_on)

    def _answer(self, request):  # noqa: C901, PLR0911  # an answer for each path
        on = self.on
        self.asked.add(request.path)
        if request.path.startswith(("/api/", "/loki/")) and self.down and on:
            return Response("down", 503)
        match request.path:
            case "/orders/":
                status = 202 if on and self._felt() else 201
                return Response(
                    json.dumps({"id": next(self._orders)}),
                    status,
                    headers={"traceresponse": f"00-{TRACE}-{'2' * 16}-01"},
                )
            case "/users/":
                self.registered.append((request.json["username"], request.json["password"]))
                return _json({})
            case "/auth/login":
                return _json({"token": "a"})
            case "/api/v1/alerts":
                names = self.always | ({"PaymentOutage"} & self._alerts(on)) | (self.noisy if on else set())
                now = datetime.now(UTC).isoformat()
                return _json(
                    {
                        "data": {
                            "alerts": [
                                {
                                    "labels": {"alertname": name},
                                    "state": "pending",
                                    "activeAt": self.since.setdefault(name, now),
                                }
                                for name in names
                            ]
                        }
                    }
                )
            case "/api/v1/query":
                kind = "metric" if "payments_total" in request.args["query"] else "panel"
                if kind == "panel" and self.empty:
                    return _json({"data": {"result": [] if on else [{"value": [0, "5"]}]}})
                value = 5 if on and kind in self.shows else 0
                result = [{"value": [0, str(value)]}] if value or kind == "panel" else []
                return _json({"data": {"result": result}})
            case "/api/traces":
                return _json({"data": [self._trace()] if on and "trace" in self.shows else []})
            case "/loki/api/v1/query_range":
                lines = [["0", "{}"]] * 3 if on and "log" in self.shows else []
                return _json({"data": {"result": [{"values": lines}]}})
        if request.path.startswith("/api/traces/"):
            return _json({"data": [self._trace()]})
        return _json({})

    def _felt(self):
        if self.hurts_for is None:
            return self.hurts
        self.hurts_for -= 1
        return self.hurts_for >= 0

    def _alerts(self, on):
        return {"PaymentOutage"} if on and "alert" in self.shows else set()

    def _trace(self):
        span = {
            "spanID": "a",
            "processID": "p",
            "operationName": "decide charge",
            "startTime": 0,
            "duration": 200_000,
            "references": [],
            "tags": [{"key": "error.type", "value": "ProcessorDown"}],
            "logs": [],
        }
        return {"traceID": TRACE, "spans": [span], "processes": {"p": {"serviceName": "payment-service", "tags": []}}}


def _json(body):
    return Response(json.dumps(body), mimetype="application/json")


@pytest.fixture
def world(peer, tmp_path, monkeypatch):
    seconds = {
        "BEFORE": 0.6,
        "WARM": 0.2,
        "WINDOW": 0.6,
        "PAUSE": 0.1,
        "CALM": 2,
        "WELL": 2,
        "WHY_AFTER": 0,
        "SETTLE": 0,
    }
    for name, value in seconds.items():
        monkeypatch.setattr(running, f"_{name}_SECONDS", value)
    monkeypatch.setattr(running, "_WHY", "nobody")  # it takes seconds: see the tests of its own below
    path = tmp_path / "flags" / "flags.json"
    rundir.switch_faults_off(path)
    return World(peer(), path)


@pytest.fixture
def run(world):
    """Run the scenario, and say how it went."""

    def go(text=SCENARIO, say=lambda _line: None):
        return Run(describing.parse("small", text), world.place, say).go()

    return go


def broken(outcome):
    return {check.kind for check in outcome.checks if check.binding and not check.kept}


def test_with_all_promises_kept_it_is_ok_and_says_when_each_was_seen(run, world):
    said = []
    outcome = run(say=said.append)
    assert outcome.ok, said
    assert (outcome.before, outcome.during, outcome.after) == (0, 1, 0)
    assert {check.kind for check in outcome.checks} >= {
        *("calm", "effect", "alert", "trace", "log", "metric", "panel", "silent", "recovery")
    }
    assert all(check.seconds is not None for check in outcome.checks if check.kind != "silent")
    report = "\n".join(said)
    assert f"[{TRACE}]" in report
    assert "alert: PaymentOutage  [pending]" in report
    assert "well again" in report
    assert not world.on


@pytest.mark.parametrize("kind", ["alert", "trace", "log", "metric", "panel"])
def test_a_signal_that_does_not_show_fails_the_scenario(run, world, kind):
    world.shows.remove(kind)
    said = []
    outcome = run(say=said.append)
    assert (outcome.ok, broken(outcome)) == (False, {kind})
    assert any(line.startswith(f"  MISSING   {kind}") for line in said)


def test_a_fault_that_nobody_feels_fails_the_scenario_whatever_shows(run, world):
    world.hurts = False
    outcome = run()
    assert (outcome.ok, broken(outcome)) == (False, {"effect"})


def test_an_alert_that_should_be_silent_fails_the_scenario(run, world):
    world.noisy.add("ServiceDown")
    world.shows.remove("metric")  # so that it goes on for long enough to be heard
    outcome = run()
    assert broken(outcome) == {"silent", "metric"}


def test_a_shop_that_does_not_get_well_fails_the_scenario(run, world):
    world.sticks = True
    outcome = run()
    assert (outcome.ok, broken(outcome)) == (False, {"recovery"})


def test_what_shows_without_the_fault_proves_nothing(run, world):
    world.always.add("PaymentOutage")
    said = []
    outcome = run(say=said.append)
    assert not outcome.ok
    assert "calm" in broken(outcome)
    assert any("NOT CALM: PaymentOutage" in line for line in said)


BURN = SCENARIO.replace("[PaymentOutage]", "[PaymentOutage, OrderLatencyBurn]")


def test_an_alert_about_a_budget_that_was_on_before_is_not_counted_and_that_is_said(run, world):
    world.always.add("OrderLatencyBurn")
    said = []
    outcome = run(BURN, said.append)
    [burn] = [check for check in outcome.of("alert") if check.what == "OrderLatencyBurn"]
    assert (outcome.ok, burn.kept, burn.seconds, burn.found) == (True, False, None, BEFORE)
    assert f"  BEFORE    alert: OrderLatencyBurn {BEFORE}" in said
    told = telling.verdict(outcome)
    assert "passed. Expected signals seen: 5 of 6; not proven, since on before: OrderLatencyBurn" in told
    assert "5 of 6; not proven, since on before: OrderLatencyBurn" in telling.table([outcome])


def test_an_alert_about_a_budget_that_ends_and_comes_again_is_counted(run, world):
    world.always.add("OrderLatencyBurn")

    def say(line):
        if line.startswith("  on "):
            world.always.clear()
            world.since.clear()
            threading.Timer(0.5, world.noisy.add, ("OrderLatencyBurn",)).start()

    outcome = run(BURN, say)
    assert outcome.ok
    assert all(check.kept for check in outcome.of("alert"))


def test_an_alert_about_a_budget_that_is_never_raised_is_missing(run):
    outcome = run(BURN)
    assert (outcome.ok, broken(outcome)) == (False, {"alert"})


def test_a_few_bad_answers_are_noise_and_no_effect(run, world):
    world.hurts_for = 30  # all that come in less than a second
    outcome = run()
    assert (outcome.ok, broken(outcome)) == (False, {"effect"})
    [effect] = outcome.of("effect")
    assert outcome.during >= 0.9
    assert effect.found == f"{outcome.during:.0%} at most, and not for long enough"
    assert "users did not feel it" in telling.verdict(outcome)


def test_what_was_felt_is_the_least_of_the_time_in_which_it_was():
    felt = Felt(0.5, 2)
    for at, value in enumerate((0.9, 0.1, 0.6, 0.8)):
        felt.add(at, value)
    assert (felt.enough, felt.level) == (False, 0.9)
    felt.add(4, 0.7)
    assert (felt.enough, felt.level) == (True, 0.6)


def test_a_panel_that_shows_nothing_has_not_fallen(run, world):
    world.empty = True
    outcome = run()
    assert (outcome.ok, broken(outcome)) == (False, {"panel"})


@pytest.mark.parametrize(
    "switch",
    [
        "{freeze: nginx}",
        "{restart: order-service, environment: {A: b}}",
        "{replica: product-service, environment: {}}",
        "{scribble: nginx, line: nonsense}",
    ],
)
def test_what_needs_a_local_stack_is_skipped_in_compose_and_the_table_says_why(run, switch):
    said = []
    outcome = run(SCENARIO.replace("{fault: payment-down}", switch), said.append)
    assert (outcome.ok, outcome.checks, outcome.during) == (True, [], None)
    assert said[-1] == f"  SKIPPED   it {acting.NEEDS_STACK}"
    assert telling.verdict(outcome) == f"  small: skipped, because it {acting.NEEDS_STACK}\n"
    table = telling.table([outcome, run()])
    assert f"| skipped: {acting.NEEDS_STACK} |" in table
    assert "1 of 1 passed; 1 skipped" in table


def test_the_customers_of_each_run_are_others_with_passwords_that_nobody_knows(world):
    load = describing.parse("small", SCENARIO).load
    for _ in range(2):
        with Customers(world.place.gateway, load):
            pass
    names, passwords = zip(*world.registered, strict=True)
    assert len(set(names)) == len(names) == 6
    assert len(set(passwords)) == 2
    assert all(len(password) >= 16 for password in passwords)


def test_telemetry_that_does_not_answer_is_missing_and_not_the_end(run, world):
    world.down = True
    outcome = run()
    assert broken(outcome) == {"alert", "trace", "log", "metric", "panel"}
    assert not world.on


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Have `make why` say something."""

    def make(text):
        (tmp_path / "stand_in.py").write_text(f"print({text!r})")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(running, "_WHY", "stand_in")

    return make


@pytest.mark.parametrize(
    ("text", "kept", "found"),
    [
        ('{"causes": [{"service": "payment-service", "operation": "decide charge"}]}', True, ""),
        ('{"causes": [{"service": "nginx"}, {"service": "payment-service"}]}', False, "nginx"),
        ('{"causes": []}', False, ""),
        ("{", False, "no answer"),
    ],
)
def test_what_why_says_is_compared_with_the_truth_and_does_not_bind(run, says, text, kept, found):
    says(text)
    said = []
    outcome = run(say=said.append)
    [check] = outcome.of("why")
    assert (outcome.ok, check.kept) == (True, kept)
    assert found in check.found
    assert any(line.startswith(f"  why       {check.found or 'nothing is wrong'}") for line in said)


def test_why_is_asked_about_the_moment_before_the_fault_was_switched_off(run, says, world, tmp_path):
    says('{"causes": []}')
    script = tmp_path / "stand_in.py"
    script.write_text(
        f"import sys, time, pathlib; time.sleep(1)\n{script.read_text()}\nprint(sys.argv, file=sys.stderr)\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(sys.argv[sys.argv.index('--at') + 1])"
    )
    off_after = []
    run(say=lambda line: off_after.append(time.time()) if line.startswith("  off ") else None)
    assert float((tmp_path / "asked").read_text()) < off_after[0] - 0.5  # it is seen for so long that all is well again


def test_why_is_asked_about_the_shop_that_the_scenario_is_run_on(run, world, monkeypatch):
    monkeypatch.setattr(running, "_WHY", "observability.why")
    monkeypatch.setenv("PROMETHEUS_URL", "http://127.0.0.1:9")
    run()
    assert "/api/services" in world.asked


def test_ctrl_c_switches_the_fault_off(run, world):
    def interrupt(line):
        if line.startswith("  on "):
            assert world.on
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(say=interrupt)
    assert not world.on
    assert not [thread for thread in threading.enumerate() if "_buy" in thread.name]


def test_what_needs_a_local_stack_says_so(world):
    freeze = describing.parse("small", SCENARIO.replace("{fault: payment-down}", "{freeze: nginx}")).switch
    with pytest.raises(ScenarioError, match="make up"):
        acting.on(freeze, world.place)


def test_a_flag_is_off_again_when_its_time_ends(world):
    switch = describing.parse("small", SCENARIO).switch
    seen = []

    def broken_off():
        with acting.on(switch, world.place):
            seen.append(world.on)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert (seen, world.on) == ([True], False)


def test_a_shop_that_cannot_be_asked_fails_the_scenario_and_not_the_others(world, tmp_path):
    nowhere = Place(world.path, *("http://127.0.0.1:9",) * 4, None)
    outcome = Run(describing.parse("small", SCENARIO), nowhere, lambda _line: None).go()
    assert (outcome.ok, broken(outcome)) == (False, {"run"})


def test_one_that_is_disturbed_by_the_last_comes_later(world):
    world.always.add("PaymentOutage")
    disturbed, quiet = (describing.parse(name, SCENARIO) for name in ("disturbed", "quiet"))
    quiet = quiet.model_copy(update={"signals": quiet.signals.model_copy(update={"alerts": []})})
    done = running.in_turn([disturbed, quiet], world.place, lambda _line: None)
    assert [outcome.scenario.name for outcome in done] == ["quiet", "disturbed"]


def test_alerts_of_the_last_have_time_to_fire_from_the_end_of_its_fault_on(world, monkeypatch):
    runs, began = [], []

    class Kept(Run):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            runs.append(self)
            began.append(time.monotonic())

    monkeypatch.setattr(running, "_SETTLE_SECONDS", 4)
    monkeypatch.setattr(running, "_WINDOW_SECONDS", 1.5)  # before which it is not well again
    monkeypatch.setattr(running, "Run", Kept)
    ended = [time.monotonic() for _ in running.in_turn([describing.parse("small", SCENARIO)] * 2, world.place, print)]
    assert began[1] - runs[0].over >= 4
    assert began[1] - ended[0] < 4


def order_of(*names):
    class Calm:
        alerts = staticmethod(dict)
        query = staticmethod(lambda _: [])

    left, order = [describing.read(name) for name in names], []
    while left:
        order.append(running._quiet(left, Calm, None))
        left.remove(order[-1])
    return [each.name for each in order]


def test_alerts_about_budgets_are_proven_first_and_latency_before_all():
    order = order_of("payment-down", "disk-full", "files-leak", "orders-column", "payment-wrong", "payment-slow")
    assert order[0] == "payment-slow"
    assert set(order[1:3]) == {"orders-column", "payment-wrong"}


def test_those_that_have_an_alert_in_common_are_begun_with_so_that_it_is_calm_again_before_the_next():
    order = order_of("payment-declines", "disk-full", "link-slow", "files-leak")
    assert order[:2] == ["disk-full", "payment-declines"]


def test_the_pace_is_kept(run, world):
    began = time.monotonic()
    outcome = run()
    placed = next(world._orders) - 1
    assert outcome.ok
    assert placed <= 40 * (time.monotonic() - began) + 45  # after a pause it may catch up for a second
