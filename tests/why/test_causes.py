"""Causes are found among noise, by what the telemetry says and by no name; and none where there is none."""

import random
import string

import pytest

from observability.why import signals
from observability.why.diagnose import diagnose
from observability.why.evidence import Series
from tests.why.world import AT, Fault, World, shop

DECIDE = {"service": "shop-c", "name": "decide"}
UPDATE = {"service": "shop-b", "name": "UPDATE order"}
CHARGE = {"service": "shop-b", "name": "POST /charge", "kind": "client"}
SETTLE = {"service": "shop-b", "name": "settle"}
VIEW = {"service": "shop-a", "name": "GET /thing/{id}", "kind": "server"}


def found(world, **how):
    answer = diagnose(world.gather(**how))
    return answer, [(cause.service, cause.operation) for cause in answer.causes]


def first_attribute(answer):
    attribute = next(iter(answer.causes[0].attributes), None)
    return attribute and (attribute.key, attribute.value)


@pytest.mark.parametrize(
    ("fault", "service", "operation"),
    [
        (Fault(**DECIDE, extra_ms=400), "shop-c", "decide"),
        (Fault(**DECIDE, extra_ms=60), "shop-c", "decide"),
        (Fault(**DECIDE, error="ProcessorDown", share=0.2), "shop-c", "decide"),
        (Fault(**UPDATE, extra_ms=900), "shop-b", "UPDATE order"),
        (Fault(**CHARGE, extra_ms=300, before=1.0), "shop-c", "POST /charge"),  # it has no thread for it yet
        (Fault(**CHARGE, extra_ms=300), "shop-b", "POST /charge"),  # its answers are long on their way
        (Fault(**CHARGE, error="ConnectError", unanswered=True), "shop-c", "POST /charge"),
        (Fault(**CHARGE, error="AnswerTimeout", unanswered=True, extra_ms=3000), "shop-b", "POST /charge"),
        (Fault(**SETTLE, error="not_paid", unusable=True), "shop-c", "POST /charge"),  # it is not what was asked for
        (Fault(**VIEW, error="500"), "shop-a", "GET /thing/{id}"),
        (Fault(service="shop-e", name="hash", extra_ms=500), "shop-e", "hash"),
        (Fault(service="gate", name="POST /order", error="502", unanswered=True), "shop-b", "POST /order"),
    ],
    ids=lambda value: f"{value.name} {value.error or value.extra_ms}" if isinstance(value, Fault) else None,
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_operation_that_is_slow_or_fails_comes_first(fault, service, operation, seed):
    answer, causes = found(World(seed=seed, faults=[fault]))
    assert answer.state == "wrong"
    assert causes[0] == (service, operation)
    assert answer.causes[0].because
    assert all(reason.query for reason in answer.causes[0].because)


@pytest.mark.parametrize(
    ("fault", "attribute", "world"),
    [
        (Fault(**DECIDE, extra_ms=400, where=lambda about: about["product"] == 7), ("product", "7"), {"rate": 8}),
        (Fault(**DECIDE, error="X", where=lambda about: about["product"] == 7), ("product", "7"), {"rate": 8}),
        (Fault(**DECIDE, extra_ms=400, where=lambda about: about["currency"] == "EUR"), ("currency", "EUR"), {}),
        (
            Fault(**UPDATE, extra_ms=400, where=lambda about: about["customer"] in range(5)),
            None,  # five customers are no single value
            {"rate": 8},
        ),
        (
            Fault(**DECIDE, extra_ms=300, where=lambda about: about["replica"] == 2),
            ("service.instance.id", "shop-c-2"),
            {"replicas": 3},
        ),
        (Fault(**DECIDE, extra_ms=200), ("service.version", "1.1.0"), {"versions": {"shop-c": (100, "1.1.0")}}),
    ],
    ids=["product slow", "product fails", "currency", "five customers", "replica", "version"],
)
def test_what_the_bad_have_in_common_is_named(fault, attribute, world):
    answer, causes = found(World(faults=[fault], **world))
    assert causes[0] == (fault.service, fault.name)
    assert first_attribute(answer) == attribute


def test_a_database_that_answers_nobody_is_one_cause():
    names = (("shop-b", "INSERT order"), ("shop-b", "SELECT order"), ("shop-e", "SELECT user"))
    faults = [Fault(service=service, name=name, error="OperationalError") for service, name in names]
    _, causes = found(World(faults=faults))
    assert [service for service, _ in causes] == ["order-db"]


def test_a_database_whose_first_statement_fails_hides_the_others_and_is_the_cause():
    journeys = [(1, journey) for weight, journey in shop() if weight == 2]  # reading, with one statement
    fault = Fault(service="shop-b", name="SELECT order", error="OperationalError")
    assert found(World(faults=[fault], journeys=journeys))[1][0] == ("order-db", "SELECT order")


CALLED = {**CHARGE, "error": "AnswerTimeout", "unanswered": True, "extra_ms": 3000}


def test_who_hangs_is_to_blame_for_calls_in_vain_and_who_is_well_is_not():
    world = World(faults=[Fault(**CALLED)])
    assert found(world)[1] == [("shop-b", "POST /charge")]
    world.down = {"shop-c": 60}
    assert found(world)[1] == [("shop-c", "POST /charge")]


def test_who_calls_a_wrong_address_is_to_blame():
    refused = Fault(**CHARGE, error="NotConnected", unanswered=True)
    answer, causes = found(World(faults=[refused], ports={"POST /charge": 9}))
    assert causes == [("shop-b", "POST /charge")]
    assert first_attribute(answer) == ("server.port", "9")
    gone = World(faults=[refused], ports={"POST /charge": 9})  # moved, and does not run there either
    gone.down = {"shop-c": 60}
    assert found(gone)[1][0] == ("shop-c", "POST /charge")


def test_an_answer_that_is_lost_on_its_way_is_the_networks_fault():
    world = World()
    for trace in world.traces:
        if trace["start"] > AT - 100:
            for span in trace["spans"]:
                if span["operationName"] == "POST /charge" and {"key": "span.kind", "value": "client"} in span["tags"]:
                    span["tags"] += [{"key": "error", "value": True}, {"key": "error.type", "value": "Reset"}]
    assert found(world)[1] == [("shop-b", "POST /charge")]


def test_a_service_that_loses_spans_is_told_with_what_it_has_too_many_of():
    world = World(many={"INSERT pay": 60})
    lost = next(one for one in signals.SIGNALS if one.name == "spans lost")
    world.metrics[lost.query] = [({"job": "shop-c"}, lambda ago: 50.0 if ago < 100 else 0.0)]
    _, causes = found(world)
    assert ("shop-c", "INSERT pay") in causes


def test_an_outage_that_was_before_once_is_not_usual():
    before = Fault(**DECIDE, error="X", since=700, until=600)
    answer, causes = found(World(faults=[before, Fault(**DECIDE, error="X", since=60)]))
    assert (answer.state, causes) == ("wrong", [("shop-c", "decide")])


@pytest.mark.parametrize(("milliseconds", "named"), [(70, False), (600, True)])
def test_what_computes_longer_now_and_then_as_on_a_busy_machine_is_no_cause(milliseconds, named):
    computes = {"service": "shop-e", "name": "hash", "extra_ms": milliseconds}
    answer, causes = found(
        World(faults=[Fault(**computes, since=100), Fault(**computes, since=500, until=300)], rate=8)
    )
    assert (("shop-e", "hash") in causes) is named
    assert answer.state == ("wrong" if named else "well")


def test_on_a_busy_machine_a_little_everywhere_is_a_note_and_one_that_stands_out_a_cause():
    calls = [("shop-a", "GET /thing/{id}"), ("shop-b", "UPDATE order"), ("shop-c", "decide"), ("shop-d", "POST /login")]
    jitter = [Fault(service=service, name=name, extra_ms=150, share=0.08) for service, name in calls]
    answer, causes = found(World(faults=jitter, rate=8))
    assert (answer.state, causes) == ("well", [])
    assert any("the machine is busy" in note.says for note in answer.notes)
    assert found(World(faults=[*jitter, Fault(**DECIDE, extra_ms=500)], rate=8))[1][0] == ("shop-c", "decide")


def test_a_statement_that_fails_by_itself_is_not_the_databases_fault():
    fault = Fault(service="shop-b", name="UPDATE order", error="42703")  # no such column
    answer, causes = found(World(faults=[fault]))
    assert causes[0] == ("shop-b", "UPDATE order")
    assert first_attribute(answer) == ("db.response.status_code", "42703")


def test_who_is_not_answered_by_several_is_one_cause():
    faults = [
        Fault(service="shop-b", name="GET /thing/{id}", kind="client", error="AnswerTimeout", unanswered=True),
        Fault(service="gate", name="GET /thing/{id}", error="504", unanswered=True),
    ]
    _, causes = found(World(faults=faults))
    assert causes == [("shop-a", "GET /thing/{id}")]


def test_requests_that_queue_behind_a_slow_call_are_put_down_to_it():
    faults = [
        Fault(**DECIDE, extra_ms=2000),
        Fault(service="gate", name="GET /order", extra_ms=700),  # before shop-b has a thread for it
    ]
    answer, causes = found(World(faults=faults))
    assert causes == [("shop-c", "decide")]
    assert any("also wait for shop-b" in reason.says for reason in answer.causes[0].because)


def test_a_service_that_burns_its_processor_is_the_cause_of_the_waits_around_it():
    names = [("POST /charge", "server"), ("decide", ""), ("SELECT pay", ""), ("INSERT pay", "")]
    faults = [Fault(service="shop-c", name=name, kind=kind, extra_ms=150) for name, kind in names]
    faults.append(Fault(**CHARGE, extra_ms=100))  # before it has time for a span
    world = World(faults=faults)
    burn = next(one for one in signals.SIGNALS if one.name == "processor")
    world.metrics[burn.query] = [({"job": "shop-c"}, lambda ago: 0.98 if ago < 100 else 0.1)]
    answer, causes = found(world)
    assert [service for service, _ in causes] == ["shop-c"]
    assert answer.causes[0].kind == "saturation"


def test_a_service_that_collects_garbage_is_the_cause_of_all_that_is_slow_in_it():
    own = [("POST /order", "server"), ("UPDATE order", ""), ("INSERT order", ""), ("POST /charge", "client"),
           ("GET /thing/{id}", "client")]  # fmt: skip
    faults = [Fault(service="shop-b", name=name, kind=kind, extra_ms=200, share=0.25) for name, kind in own]
    world = World(faults=faults, rate=6)
    full = next(one for one in signals.SIGNALS if one.name == "garbage")
    world.metrics[full.query] = [({"job": "shop-b"}, lambda ago: 0.9 if ago < 100 else 0.02)]
    assert found(world)[1][0] == ("shop-b", "POST /order")


@pytest.mark.parametrize(("milliseconds", "named"), [(900, True), (105, False)])
def test_what_costs_nobody_anything_over_all_is_no_cause(milliseconds, named):
    faults = [Fault(**DECIDE, extra_ms=milliseconds, share=0.04)]
    assert bool(found(World(faults=faults, rate=12, noise=0.2))[1]) == named


def test_no_name_is_known():
    rng = random.Random(5)
    names = {}

    def other(text):
        return names.setdefault(text, "".join(rng.choices(string.ascii_letters + " /", k=12)).strip() or "x")

    journeys = shop(other)
    fault = Fault(service=other("shop-c"), name=other("decide"), extra_ms=400)
    _, causes = found(World(faults=[fault], journeys=journeys))
    assert causes[0] == (other("shop-c"), other("decide"))


@pytest.mark.parametrize("seed", range(100))
def test_in_health_there_is_no_cause(seed):
    rng = random.Random(seed)
    usual = [Fault(**VIEW, error="500", share=0.01, since=2000), Fault(**DECIDE, extra_ms=500, share=0.02, since=2000)]
    world = World(
        seed=1000 + seed,
        rate=rng.choice((0.2, 1, 2)),
        noise=rng.choice((0.2, 0.45, 0.9)),
        slower=rng.choice((1, 1, 1.5, 3)),
        faults=usual,
    )
    answer, causes = found(world)
    assert (answer.state, causes) == ("well", [])


@pytest.mark.parametrize("larger", [0, 1])
def test_of_two_at_once_the_larger_one_comes_first(larger):
    faults = [
        Fault(**DECIDE, extra_ms=900 if larger == 0 else 90),
        Fault(**VIEW, extra_ms=900 if larger == 1 else 90),
    ]
    _, causes = found(World(faults=faults))
    expected = [(fault.service, fault.name) for fault in faults]
    assert causes[:2] == (expected if larger == 0 else expected[::-1])


def test_who_fails_counts_more_than_who_is_a_little_slow():
    faults = [Fault(**DECIDE, extra_ms=90), Fault(service="shop-e", name="hash", error="X")]
    _, causes = found(World(faults=faults))
    assert causes == [("shop-e", "hash"), ("shop-c", "decide")]


def test_a_fault_that_has_ended_is_over():
    answer, causes = found(World(faults=[Fault(**DECIDE, extra_ms=400, until=50)]))
    assert answer.state == "over"
    assert causes[0] == ("shop-c", "decide")


@pytest.mark.parametrize("since", [300, 400])
def test_a_fault_that_is_older_than_what_is_looked_at_is_no_habit_yet(since):
    answer, causes = found(World(faults=[Fault(**DECIDE, extra_ms=400, since=since)]))
    assert answer.state == "wrong"
    assert causes[0] == ("shop-c", "decide")


def test_an_alert_tells_since_when_it_is_bad():
    world = World(faults=[Fault(**DECIDE, error="X", since=900)], seconds=2000, rate=1)
    world.alerting = [
        {"state": "firing", "labels": {"alertname": "A", "job": "shop-c"}, "activeAt": "2027-01-15T07:46:00Z",
         "annotations": {"runbook_url": "docs/runbooks/A.md"}}  # 840 s before AT
    ]  # fmt: skip
    answer, causes = found(world)
    assert causes[0] == ("shop-c", "decide")
    assert answer.causes[0].runbook == "docs/runbooks/A.md"
    assert answer.alerts[0]["name"] == "A"


def test_an_alert_without_a_cause_is_told_and_no_cause_is_made_up():
    world = World()
    world.alerting = [{"state": "firing", "labels": {"alertname": "A"}, "activeAt": "2027-01-15T07:59:00Z"}]
    answer, causes = found(world)
    assert (answer.state, causes) == ("unexplained", [])


BUDGET = "slo:sli_error:ratio_rate5m > 0.13 and slo:sli_error:ratio_rate1h > 0.13"


@pytest.mark.parametrize(
    ("expression", "state"),
    [
        (BUDGET, "over"),
        ("sum(rate(errors_total[10m])) > 1", "over"),
        ("sum(rate(errors_total[1m])) > 1", "unexplained"),
        ("up == 0", "unexplained"),
    ],
)
def test_an_alert_that_looks_back_further_than_what_is_well_says_nothing_of_now(expression, state):
    world = World()
    world.alerting = [{"state": "firing", "labels": {"alertname": "A"}, "activeAt": "2027-01-15T07:59:00Z"}]
    world.rules_of = {"A": expression}
    answer, causes = found(world)
    assert (answer.state, causes) == (state, [])
    assert any("looks back" in note.says for note in answer.notes) == (state == "over")


def test_of_two_alerts_one_that_is_about_now_stays_unexplained():
    world = World()
    labels = [{"alertname": "A"}, {"alertname": "B"}]
    world.alerting = [{"state": "firing", "labels": one, "activeAt": "2027-01-15T07:59:00Z"} for one in labels]
    world.rules_of = {"A": BUDGET, "B": "sum(rate(errors_total[1m])) > 1"}
    assert found(world)[0].state == "unexplained"


def test_without_anything_before_only_what_failed_is_bad():
    short = {"seconds": 100}
    assert found(World(faults=[Fault(**DECIDE, extra_ms=900)], **short))[1] == []
    answer, causes = found(World(faults=[Fault(**VIEW, error="500")], **short))
    assert causes[0] == ("shop-a", "GET /thing/{id}")
    assert any("Too little" in note.says for note in answer.notes)


def test_without_anything_before_what_fails_often_is_bad_though_users_are_answered():
    fault = Fault(**SETTLE, error="not_paid", unusable=True, since=100, share=0.5)
    answer, causes = found(World(faults=[fault], seconds=100))
    assert (answer.state, causes[0]) == ("wrong", ("shop-c", "POST /charge"))


def test_of_a_shop_that_was_started_a_minute_before_it_is_known_what_is_usual():
    evidence = World(seconds=180, rate=6).gather()
    enough = [journey for journey in evidence.journeys.values() if len(journey.usual) >= 36]
    assert len(enough) >= 3


def test_a_machine_that_is_evenly_slower_is_told_as_a_note():
    answer, causes = found(World(slower=4))
    assert causes == []
    assert any("as long as before, evenly" in note.says for note in answer.notes)


def test_a_clock_that_is_off_is_a_fault_of_the_telemetry():
    answer, causes = found(World(skew={"shop-c": -400_000}))
    assert causes[0] == ("shop-c", "clock")
    assert answer.causes[0].kind == "telemetry"


def test_spans_that_are_missing_are_a_fault_of_the_telemetry():
    answer, causes = found(World(quiet={"shop-c"}))
    assert causes[0] == ("shop-c", "POST /charge")
    assert answer.causes[0].kind == "telemetry"


def test_log_lines_that_are_new_are_a_reason():
    world = World(faults=[Fault(**DECIDE, error="X")])
    world.lines = [(ago, "shop-b", "warning", "dependency.unavailable", "shop-c") for ago in range(0, 90, 3)]
    answer, _ = found(world)
    assert any("shop-b logs dependency.unavailable (shop-c)" in one.says for one in answer.causes[0].because)


def test_a_flood_of_log_lines_is_a_fault_of_the_telemetry():
    world = World()
    world.lines = [(ago / 50, "shop-a", "info", "cache.missed", "") for ago in range(3000)]
    answer, causes = found(world)
    assert causes == [("shop-a", "logs")]
    assert first_attribute(answer) == ("event", "cache.missed")


def test_a_part_that_is_gone_is_a_cause_even_where_nobody_asks():
    world = World(seconds=100)
    world.down = {"shop-c": 60}
    answer, causes = found(world)
    assert causes[0] == ("shop-c", "")
    assert first_attribute(answer) == ("up", "0")


@pytest.mark.parametrize(("missing", "named"), [(["Jaeger does not answer."], True), ([], False)])
@pytest.mark.parametrize("started", [60, 9000])
def test_what_keeps_the_telemetry_is_gone_as_soon_as_it_answers_nobody(missing, named, started):
    world = World()
    world.metrics = {signals.STARTED: [prometheus_began(started)]}
    evidence = world.gather()
    points = [(AT - ago, float(ago > 10)) for ago in range(900, 0, -15)] + [(AT - 1, 0.0)]
    evidence.up.append(Series(labels={"job": "jaeger"}, points=points))
    evidence.missing = missing
    assert ("jaeger" in {cause.service for cause in diagnose(evidence).causes}) == named


def test_one_scrape_that_failed_is_no_outage():
    world = World()
    world.down = {"shop-c": 10}
    world.metrics = {signals.GATEWAY_UP: [({"job": "gate"}, lambda ago: float(ago > 10))]}
    assert found(world)[0].state == "well"


def prometheus_began(ago):
    """Prometheus' own start, so many seconds ago; before that it ran, too."""
    return {"job": "prometheus"}, lambda seconds: AT - ago if seconds < ago else AT - 9000


@pytest.mark.parametrize(
    ("ago", "until", "state"),
    [
        (30, 25, "well"),  # as after `make down` and `make up`: there are values of before, and 0 since the start
        (119, 110, "well"),
        (121, 110, "wrong"),  # for too long
        (110, 40, "wrong"),  # it has answered since
    ],
)
@pytest.mark.parametrize("part", ["gateway", "service"])
def test_a_part_that_had_not_been_started_when_prometheus_was_is_not_down(part, ago, until, state):
    world = World(seconds=100)
    world.metrics = {signals.STARTED: [prometheus_began(ago)]}
    if part == "gateway":
        world.metrics[signals.GATEWAY_UP] = [({"job": "gate"}, lambda seconds: float(seconds > until))]
    else:
        world.down = {"shop-c": until}
    answer, causes = found(world)
    assert answer.state == state
    assert bool(causes) == (state == "wrong")
    notes = [note.says for note in answer.notes if "may still be starting" in note.says]
    assert len(notes) == (part == "service" and state == "well")


def test_what_crashes_is_not_starting_because_it_was_started_itself():
    world = World(seconds=100)
    world.metrics = {signals.STARTED: [({"job": "shop-c"}, lambda seconds: AT - 30 if seconds < 30 else AT - 9000)]}
    world.down = {"shop-c": 25}
    assert found(world)[1] == [("shop-c", "")]


def test_where_prometheus_was_just_started_what_fails_is_charged_to_the_service_that_is_down():
    world = World(faults=[Fault(**CHARGE, error="AnswerTimeout", unanswered=True, extra_ms=3000)])
    world.metrics = {signals.STARTED: [prometheus_began(30)]}
    world.down = {"shop-c": 25}
    assert found(world)[1][0] == ("shop-c", "POST /charge")


@pytest.mark.parametrize(
    ("name", "before", "now", "bad"),
    [
        ("pool", 0.3, 0.95, True),
        ("pool", 0.3, 0.7, False),
        ("memory", 90e6, 400e6, True),
        ("memory", 90e6, 120e6, False),
        ("descriptors", 40, 900, True),
        ("spans lost", 0, 30, True),
        ("series", 600, 9000, True),
        ("series", 100, 614, False),
        ("series", 600, 700, False),
        ("locks", 0, 4, True),
    ],
)
def test_what_runs_short_is_seen(name, before, now, bad):
    signal = next(one for one in signals.SIGNALS if one.name == name)
    found = signals.judge(signal, {"job": "shop-c"}, [now] * 4, [before] * 40)
    assert bool(found) is bad
    assert not found or ("shop-c" in found.says or signal.service)


def test_a_metric_is_a_reason_of_the_cause_that_it_is_about():
    world = World(faults=[Fault(**UPDATE, extra_ms=900)])
    locks = next(one for one in signals.SIGNALS if one.name == "locks")
    world.metrics[locks.query] = [({}, lambda ago: 5 if ago < 100 else 0)]
    answer, causes = found(world)
    assert causes[0] == ("shop-b", "UPDATE order")
    assert any("wait for a lock" in reason.says for reason in answer.causes[0].because)


def test_a_pair_shows_where_the_bad_one_differs():
    answer, _ = found(World(faults=[Fault(**DECIDE, extra_ms=400)]))
    assert answer.pair.rows[0]["operation"] == "decide"
    good, bad = answer.pair.rows[0]["own_ms"]
    assert bad > good + 300


def test_a_time_that_is_given_counts():
    answer, causes = found(
        World(faults=[Fault(**DECIDE, extra_ms=400, since=600)], seconds=1800, rate=2), since=AT - 620
    )
    assert causes[0] == ("shop-c", "decide")
    assert answer.since == "2027-01-15T07:49:40Z"
