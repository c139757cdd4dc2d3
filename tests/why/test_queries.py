"""Each sentence is told with the query that it follows from, and the backend that it is for understands that."""

import json
import re
import subprocess
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from observability.embedded.logql.parse import parse
from observability.story.apis import Loki, Refused
from observability.why import changes, signals
from observability.why.alerting import Measure, measures
from observability.why.answer import Reason
from observability.why.diagnose import diagnose
from observability.why.evidence import Series
from tests.fixtures.embedded import running_embedded
from tests.fixtures.programs import find_promtool
from tests.fixtures.stack import PROJECT
from tests.why.test_recordings import RUNS, run_of
from tests.why.world import AT, Fault, World

DECIDE = {"service": "shop-c", "name": "decide"}
CALL = {"service": "shop-b", "name": "POST /charge", "kind": "client"}
RULES = [
    rule
    for path in sorted((PROJECT / "observability/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def alert(name="A", state="firing", **labels):
    return {"state": state, "labels": {"alertname": name, **labels}, "activeAt": "2027-01-15T07:59:00Z"}


def world(**changes):
    """A made-up shop; what is no argument of it is set afterwards."""
    own = {name: changes.pop(name) for name in ("lines", "down", "alerting", "rules_of", "metrics") if name in changes}
    made = World(rate=2, **changes)
    vars(made).update(own)
    return made


def metrics(name, value, job="shop-c"):
    query = next(one.query for one in signals.SIGNALS if one.name == name)
    return {query: [({"job": job}, lambda ago: value if ago < 100 else 0)]}


WORLDS = {
    "slow": lambda: world(faults=[Fault(**DECIDE, extra_ms=400)]),
    "failing": lambda: world(faults=[Fault(**DECIDE, error="X")]),
    "refused": lambda: world(faults=[Fault(service="gate", name="POST /order", error="409", share=0.6)]),
    "unanswered": lambda: world(faults=[Fault(**CALL, error="ConnectTimeout", unanswered=True, extra_ms=3000)]),
    "late": lambda: world(faults=[Fault(**CALL, extra_ms=400, before=0.1)]),
    "misdirected": lambda: world(
        faults=[Fault(**CALL, error="ConnectionError", unanswered=True)], ports={"POST /charge": 81}
    ),
    "by an attribute": lambda: world(
        faults=[Fault(**DECIDE, extra_ms=400, where=lambda about: about["currency"] == "EUR")]
    ),
    "clock": lambda: world(skew={"shop-c": -400_000}),
    "missing spans": lambda: world(quiet={"shop-c"}),
    "flood": lambda: world(lines=[(ago / 50, "shop-a", "info", "cache.missed", "") for ago in range(3000)]),
    "flood of errors": lambda: world(lines=[(ago / 50, "shop-a", "error", "disk.full", "") for ago in range(3000)]),
    "warnings": lambda: world(lines=[(ago, "shop-b", "warning", "it.waits", "shop-c") for ago in range(0, 90, 3)]),
    "gone": lambda: world(down={"shop-c": 60}),
    "no gateway": lambda: world(metrics={signals.GATEWAY_UP: [({"job": "g"}, lambda ago: float(ago > 60))]}),
    "restart": lambda: world(
        metrics={signals.STARTED: [({"job": "shop-c"}, lambda ago: AT - 30 if ago < 30 else AT - 9000)]}
    ),
    "release": lambda: world(faults=[Fault(**DECIDE, extra_ms=400)], versions={"shop-c": (100, "2.0.0")}),
    "short of memory": lambda: world(metrics=metrics("memory", 9e8)),
    "many at once": lambda: world(metrics=metrics("requests at once", 90)),
    "busy": lambda: world(slower=4),
    "jitter": lambda: world(
        faults=[
            Fault(service=service, name=name, extra_ms=300, share=0.2)
            for service, name in (("shop-a", "GET /thing/{id}"), ("shop-c", "decide"), ("shop-e", "hash"))
        ]
    ),
    "empty": lambda: world(seconds=0),
    "idle": lambda: world(faults=[], seconds=1020),
    "short": lambda: world(seconds=100),
    "alert": lambda: world(
        alerting=[alert(job="shop-c")],
        rules_of={"A": "depth > 0.5"},
        metrics={"depth": [({"job": "shop-c"}, lambda ago: 0.9 if ago < 90 else 0.1)]},
    ),
    "budget": lambda: world(alerting=[alert()], rules_of={"A": "slo:ratio_rate1h > 0.13"}),
}
SAYS = {
    "slow": "on the critical path",
    "failing": "the failure begins",
    "refused": "are answered 409",
    "unanswered": "none of .* reached",
    "late": "long on their way",
    "misdirected": "where it did not before",
    "by an attribute": "of the bad have currency=EUR",
    "clock": "its clock is off",
    "missing spans": "has no span of them",
    "flood": "logs cache.missed .* times a second",
    "flood of errors": "logs disk.full",
    "warnings": "logs it.waits",
    "gone": "No replica of shop-c",
    "no gateway": "does not answer its own health check",
    "restart": "was started anew",
    "release": "runs version 2.0.0 now",
    "short of memory": "of memory",
    "many at once": "requests at once",
    "busy": "evenly",
    "jitter": "slow now and then",
    "empty": "Nobody has asked",
    "short": "Too little was asked",
    "alert": "A fires for job=shop-c",
    "budget": "looks back",
}


def answer_of(name):
    made = WORLDS[name]()
    return diagnose(made.gather(AT - 100 if name == "short" else None))


def ask_for(query):
    """Check a search of Jaeger's, as a URL."""
    url = urlsplit(query)
    assert (url.scheme, bool(url.netloc)) == ("http", True)
    if url.path == "/api/services" or re.fullmatch("/api/traces/[0-9a-f]+", url.path):
        assert not url.query
        return
    assert url.path == "/api/traces"
    fields = {name: value for name, [value] in parse_qs(url.query, strict_parsing=True).items()}
    assert fields.keys() <= {"service", "operation", "start", "end", "limit", "tags", "minDuration"}
    assert fields["service"]
    assert 0 < int(fields["start"]) < int(fields["end"])
    assert int(fields["limit"]) > 0
    assert re.fullmatch(r"\d+us", fields.get("minDuration", "1us"))
    assert isinstance(json.loads(fields.get("tags", "{}")), dict)


def check(answer, folder):
    """Check each sentence's query in its own language."""
    by_backend = {"Jaeger": [], "Loki": [], "Prometheus": []}
    for one in answer.sentences():
        assert one.query, one.says
        by_backend[one.backend].append(one.query)
    for query in by_backend["Jaeger"]:
        ask_for(query)
    for query in by_backend["Loki"]:
        parse(query)
    understood_by_prometheus(by_backend["Prometheus"], folder)


def understood_by_prometheus(queries, folder):
    if not queries:
        return
    rules = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(queries)]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run([find_promtool(), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_each_sentence_of_a_recording_has_a_query_that_can_be_asked(folder, tmp_path):
    kept, truth = run_of(folder)
    answer = diagnose(kept.evidence())
    assert answer.sentences() or truth["service"] is None
    check(answer, tmp_path)


@pytest.mark.parametrize("name", WORLDS)
def test_each_kind_of_sentence_has_a_query_that_can_be_asked(name, tmp_path):
    answer = answer_of(name)
    said = [one.says for one in answer.sentences()]
    assert any(re.search(SAYS[name], one) for one in said) if name in SAYS else not said
    check(answer, tmp_path)


def test_what_a_request_has_too_many_spans_of_is_told_with_the_search_that_found_them():
    evidence = world(many={"INSERT pay": 60}).gather()
    before = [request for journey in evidence.journeys.values() for request in journey.usual]
    name, reason = changes.multiplied(evidence, before, "shop-c")
    assert name == "INSERT pay"
    assert reason.query == evidence.probes["shop-c"]
    ask_for(reason.query)


def test_a_flood_is_told_with_the_query_that_counts_its_level():
    for name, levels in (("flood", "info|debug"), ("flood of errors", "warning|error|critical")):
        [query] = {one.query for one in answer_of(name).causes[0].because}
        assert f'| level=~"{levels}"' in query


def test_what_is_counted_in_the_log_can_be_asked_of_a_loki(tmp_path):
    evidence = world().gather()
    with running_embedded(tmp_path) as backend:
        loki = Loki(backend.loki.root)
        for query in (evidence.events_query, evidence.usual_events_query):
            assert loki.count(query, AT) == []
        with pytest.raises(Refused):
            loki.count(evidence.events_query[:-1], AT)


@pytest.mark.parametrize(
    ("query", "backend"),
    [
        ("http://127.0.0.1:1/api/traces?service=a|b", "Jaeger"),
        ("https://jaeger.example/prefix/api/services", "Jaeger"),
        ('{a="b"} | json', "Loki"),
        ('sum by (level) (count_over_time({a="b"} | level=~"x|y" [30s]))', "Loki"),
        ('sum(rate(up{job=~"a|b"}[1m]))', "Prometheus"),
        ("sum(rate(up{job=~'a|b'}[1m]))", "Prometheus"),
        ("up", "Prometheus"),
    ],
)
def test_a_query_says_whom_it_asks(query, backend):
    assert Reason(says="", query=query).backend == backend


# --- what an alert measures


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up == 0", [Measure("up", "==", 0)]),
        ("up == bool 0", [Measure("up == bool 0")]),
        ('max by (job) (up{a!="b > 1"}) < 1', [Measure('max by (job) (up{a!="b > 1"})', "<", 1)]),
        ("a / b > 0.05 and a * 60 >= 5", [Measure("a / b", ">", 0.05)]),
        ("a > 1 unless b > 2 or c <= -3e2", [Measure("a", ">", 1), Measure("c", "<=", -300)]),
        ("((a > 1) and b)", [Measure("a", ">", 1)]),
        ("(a or vector(0)) == 0 and on () b >= 5", [Measure("(a or vector(0))", "==", 0)]),
        ("max(a > (14 * 0.5)) without (w)", [Measure("max(a) without (w)", ">", 7)]),
        ("absent(up)", [Measure("absent(up)")]),
        ("1 < a", [Measure("1 < a")]),
        ("a > b", [Measure("a > b")]),
        ("a > 2 * b", [Measure("a > 2 * b")]),
        ("a > 1 > 0", [Measure("a > 1 > 0")]),
        ('label_replace(a, "or", "$1", "and", "(x > 3)") > 4', [Measure(
            'label_replace(a, "or", "$1", "and", "(x > 3)")', ">", 4)]),
    ],
)  # fmt: skip
def test_an_expression_is_taken_without_its_limit(expression, expected):
    assert measures(expression) == expected


def test_what_each_alert_of_ours_measures_is_understood_and_has_a_limit(tmp_path):
    found = {rule["alert"]: measures(rule["expr"]) for rule in RULES}
    assert len(found) > 15
    for name, each in found.items():
        assert any(one.operator for one in each), name
        assert all(one.operator or one.query.startswith("absent(") for one in each), name
    understood_by_prometheus([one.query for each in found.values() for one in each], tmp_path)


def test_an_alert_is_told_by_its_expression_now_before_and_of_others():
    series = [
        ({"job": "shop-c"}, lambda ago: 0.9 if ago < 90 else 0.1),
        ({"job": "shop-a"}, lambda _: 0.2),
        ({"job": "shop-b"}, lambda _: float("nan")),
    ]
    answer = diagnose(
        world(
            alerting=[alert("Later", "pending", job="shop-c"), alert(job="shop-c", severity="page")],
            rules_of={"A": "depth > 0.5 and on () up", "Later": "absent(nothing)"},
            metrics={"depth": series, "absent(nothing)": [({}, lambda ago: 1.0 if ago < 60 else float("nan"))]},
        ).gather()
    )
    assert answer.state == "unexplained"
    first, second = answer.alerts
    assert first["says"] == "A fires for job=shop-c: it is 0.9 now, > 0.5; before 0.1; all others now at most 0.2."
    assert (first["now"], first["before"], first["others"], first["measure"]) == (0.9, 0.1, 0.2, "depth")
    assert first["query"] == "depth > 0.5 and on () up"
    assert second["says"].startswith("Later is pending: its expression holds")


def test_of_alternatives_that_one_is_told_that_is_bad():
    answer = diagnose(
        world(
            alerting=[alert(job="shop-c")],
            rules_of={"A": "waits > 1 or timeouts > 0"},
            metrics={"waits": [({"job": "shop-c"}, lambda _: 0.3)], "timeouts": [({"job": "shop-c"}, lambda _: 2)]},
        ).gather()
    )
    assert answer.alerts[0]["measure"] == "timeouts"


def test_an_alert_that_still_fires_is_told_to_be_bad_no_longer():
    made = world(
        alerting=[alert()], rules_of={"A": "depth > 0.5"}, metrics={"depth": [({}, lambda ago: float(ago > 60))]}
    )
    says = diagnose(made.gather()).alerts[0]["says"]
    assert says == "A fires: it is 0 now, no longer > 0.5; before 1."


def test_a_page_and_a_ticket_of_one_name_have_expressions_of_their_own():
    made = world(
        alerting=[alert(severity="page"), alert(severity="ticket")],
        rules_of={"A": "slow > 2", "A page": "fast > 1", "A ticket": "slow > 2"},
        metrics={"fast": [({}, lambda _: 9)], "slow": [({}, lambda _: 3)]},
    )
    assert [one["measure"] for one in diagnose(made.gather()).alerts] == ["fast", "slow"]


def test_an_alert_of_which_nothing_is_known_is_shown_as_it_is():
    answer = diagnose(world(alerting=[{"state": "firing", "labels": {}}, alert()], rules_of={"A": "gone > 1"}).gather())
    assert [(one["says"], one["now"]) for one in answer.alerts] == [("", None)] * 2


def test_series_without_points_harm_nothing():
    evidence = world(alerting=[alert()], rules_of={"A": "a > 1"}).gather()
    evidence.measured["a > 1"] = [(Measure("a", ">", 1), [Series(labels={}, points=[])])]
    assert "it has no value now" in diagnose(evidence).alerts[0]["says"]
