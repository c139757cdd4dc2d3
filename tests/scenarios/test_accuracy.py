"""How good `make why` is: which runs there are, what is kept of them, and how what was kept is judged again."""

import importlib.util
import json
import re

import pytest

from local.settings import PROJECT
from observability.story.apis import Jaeger, Loki, Prometheus
from observability.story.errors import StoryError
from observability.why import recording
from observability.why.diagnose import diagnose
from observability.why.gather import Backends
from scenarios import accuracy, cli, describing, flags
from scenarios.accuracy import OURS, Case, judge, results
from scenarios.telling import of_why
from tests.why.world import AT, Fault, World

DECIDE = Fault(service="shop-c", name="decide", extra_ms=400, where=lambda about: about["product"] == 7)
TRUTH = {"service": "shop-c", "operation": "decide", "attribute": {"key": "product", "value": "7"}}
KNOWN = {each.name: each.variants for each in flags.read(flags.DEFAULT)}


@pytest.fixture
def asked(monkeypatch):
    """A made-up shop behind the APIs that are recorded; with how often it was asked."""
    world, count = World(faults=[DECIDE], rate=6), []

    def answers(api, name):
        def ask(_self, *given):
            count.append(name)
            if name == "count" and world.lines is None:
                raise StoryError("Loki is away.")
            return getattr(world, name)(*given)

        monkeypatch.setattr(api, name, ask)

    for api, names in ((Jaeger, ("services", "search")), (Loki, ("count",)), (Prometheus, ("over", "alerts", "rules"))):
        for name in names:
            answers(api, name)
    return world, count


def record():
    return recording.record(Backends(Jaeger("http://j"), Loki("http://l"), Prometheus("http://p")), AT)


@pytest.mark.parametrize("end", [".json.gz", ".json.xz"])
def test_what_was_kept_gives_the_same_answer_without_anybody_being_asked(asked, tmp_path, end):
    _, count = asked
    kept, evidence = record()
    assert kept.traces
    kept.write(tmp_path / f"evidence{end}")
    count.clear()
    again = recording.read(tmp_path / f"evidence{end}").evidence()
    assert count == []
    assert diagnose(again).plain() == diagnose(evidence).plain()
    assert diagnose(again).causes[0].service == "shop-c"


def test_a_backend_that_did_not_answer_does_not_answer_again(asked):
    world, _ = asked
    world.lines = None
    kept, evidence = record()
    assert kept.evidence().missing == evidence.missing != []


def test_what_was_not_asked_for_lack_of_time_is_missed_and_the_rest_is_not(asked):
    kept, _ = record()
    gone = next(key for key in kept.answers if '"limit": "12"' in key)
    del kept.answers[gone]
    evidence = kept.evidence()
    assert evidence.missing == ["Not all was asked: it took too long."]
    assert diagnose(evidence).causes[0].service == "shop-c"


def test_what_says_that_a_fault_is_simulated_can_be_taken_out(asked):
    world, _ = asked
    world.lines = [(10, "shop-c", "info", event, "") for event in ("flags.changed", "order.paid")]
    for trace in world.traces:
        for span in trace["spans"]:
            span["tags"].append({"key": "feature_flag.key", "value": "x"})
            span["logs"] = [
                {"timestamp": 1, "fields": [{"key": key, "value": "x"}]} for key in ("feature_flag.key", "event")
            ]
    kept, _ = record()
    text = json.dumps([kept.traces, kept.answers])
    assert "feature_flag" in text
    assert "flags.changed" in text
    recording.without_flags(kept)
    text = json.dumps([kept.traces, kept.answers])
    assert "feature_flag" not in text
    assert "flags.changed" not in text
    assert "order.paid" in text
    assert '"event"' in text


def run_in(folder, name, truth, kept, **more):
    where = folder / name
    where.mkdir()
    kept.write(where / "evidence.json.gz")
    about = {"scenario": name, "seed": 1, "seconds": 1.5, "load": 2.0, "felt": [True]}
    (where / "truth.json").write_text(json.dumps(about | truth | more))
    return where


def test_each_run_is_graded_beside_the_baselines_and_summed_up(asked, tmp_path, capsys):
    kept, _ = record()
    run_in(tmp_path, "right", TRUTH, kept)
    run_in(tmp_path, "wrong", TRUTH | {"service": "shop-e"}, kept, seconds=9.5)
    run_in(tmp_path, "right+wrong", TRUTH, kept)
    run_in(tmp_path, "weak", TRUTH, kept, felt=[False])
    run_in(tmp_path, "health", {"service": None}, kept)
    file = tmp_path / "results.json"
    assert cli.main(["accuracy", "--replay", str(tmp_path), "--json", str(file), "--tuned", "On others."]) == 0
    found = json.loads(file.read_text())
    assert found["runs"] == {"faults": 2, "not felt": 1, "pairs": 1, "health": 1}
    assert found["faults"][OURS]["service@1"] == 0.5
    assert found["faults"][OURS]["attribute@1"] == 0.5
    assert found["pairs"][OURS]["operation@1"] == 1
    assert found["health"][OURS]["false_alarms"] == 1
    assert set(found["faults"]) > {OURS, "slowest span"}
    assert found["seconds"] == {"median": 1.5, "longest": 9.5}
    assert found["tuned"] == "On others."
    printed = capsys.readouterr().out
    assert re.search(r"^faults +make why +service@1 50%", printed, re.MULTILINE)
    assert "wrong.1 None: not service@1" in printed
    assert "right.1" not in printed.replace("right+wrong.1", "")


def test_an_attribute_that_only_a_flag_tells_is_not_asked_for_without_flags(asked, tmp_path):
    kept, _ = record()
    judged = judge(run_in(tmp_path, "flagged", TRUTH | {"attribute": {"key": "feature_flag.x"}}, kept))
    assert judged.grades[OURS]["attribute@1"] is None
    assert judged.with_flags[OURS]["attribute@1"] is False
    assert results([judged])["runs"]["faults"] == 1


def test_a_seed_gives_the_same_run_again_and_others_another_strength():
    scenario = describing.read("payment-slow")
    cases = [Case((scenario,), seed) for seed in range(1, 6)]
    chosen = [case.switch(scenario, KNOWN) for case in cases]
    assert chosen == [Case((scenario,), seed).switch(scenario, KNOWN) for seed in range(1, 6)]
    assert {variant for _, variant in chosen} == {"weak", "on", "strong"}
    assert {switch.to for switch, _ in chosen} == {"weak", "on", "strong"}
    orders = [case.load(scenario).orders for case in cases]
    assert len(set(orders)) > 1
    assert all(scenario.load.orders / 2 <= each <= scenario.load.orders for each in orders)


def test_a_kind_of_fault_is_no_strength():
    scenario = describing.read("link-lossy")
    assert {Case((scenario,), seed).switch(scenario, KNOWN)[1] for seed in range(5)} == {"lossy"}


def test_pairs_are_of_faults_that_can_be_on_at_once():
    assert len(accuracy.PAIRS) >= 12
    assert len(set(accuracy.PAIRS)) == len(accuracy.PAIRS)
    for pair in accuracy.PAIRS:
        first, second = map(describing.read, pair)
        assert first.switch.fault != second.switch.fault


@pytest.mark.parametrize(
    ("cause", "said", "kept"),
    [
        (("c", "decide", ("product", "7")), "service right, operation right, attribute right", True),
        (
            ("c", "other", ("product", "8")),
            "service right, operation wrong, attribute wrong: it says c other product=8",
            False,
        ),
        (None, "service wrong, operation wrong, attribute wrong: it says that nothing is wrong", False),
    ],
)
def test_a_report_says_what_of_the_answer_is_right(cause, said, kept):
    truth = describing.Truth(service="c", operation="decide", attribute="product=7")
    causes = []
    if cause:
        service, operation, (key, value) = cause
        causes = [{"service": service, "operation": operation, "attributes": [{"key": key, "value": value}]}]
    assert of_why({"causes": causes}, truth) == (said, kept)


def test_a_report_says_nothing_of_what_the_truth_leaves_open():
    assert of_why({"causes": [{"service": "c"}]}, describing.Truth(service="c")) == ("service right", True)


def test_the_page_has_the_results_that_are_committed():
    spec = importlib.util.spec_from_file_location("accuracy_page", PROJECT / "docs/accuracy.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page = (PROJECT / "docs/why.md").read_text(encoding="utf-8")
    assert pages.updated(page) == page, "run `make docs`"
    assert f"| {OURS} | one fault |" in page
