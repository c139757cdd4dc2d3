"""A regression is what is worse than measurements scatter."""

import copy
import json

import pytest

from bench import judge

MACHINE = {"cores": 4, "cpu": "Some CPU"}


def result(rows, machine=MACHINE):
    """A comparison: row -> its orders/s by round. An order takes the processor time that its speed leaves."""
    turns = [
        {"row": row, "round": number, "per_second": speed, "cpu_ms": 1000 / speed, "parts_cpu_ms": {}}
        for row, speeds in rows.items()
        for number, speed in enumerate(speeds)
    ]
    return {
        "kind": "comparison",
        "base": next(iter(rows)),
        "rows": {row: row for row in rows},
        "turns": turns,
        "machine": machine,
    }


def verdicts(findings):
    return [finding.verdict for finding in findings]


OFF = [400, 500, 450]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([400, 500, 450], "as before"),
        ([390, 510, 440], "as before"),  # one round is better: it is noise
        ([398, 497, 447], "as before"),  # all are worse, and by less than anybody notices
        ([380, 470, 425], "WORSE"),
        ([420, 520, 470], "as before"),
    ],
)
def test_beside_the_commit_before_all_rounds_have_to_be_worse(now, expected):
    assert verdicts(judge.beside(result({"default": OFF, "default (2)": now}))) == [expected, expected]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [([0.7, 0.72, 0.71], "as before"), ([0.62, 0.7, 0.65], "as before"), ([0.55, 0.58, 0.6], "WORSE")],
)
def test_against_kept_results_the_spreads_have_to_be_apart(ratios, expected):
    def made(of_off):
        return result({"off": OFF, "default": [speed * ratio for speed, ratio in zip(OFF, of_off, strict=True)]})

    assert verdicts(judge.against(made(ratios), made([0.68, 0.75, 0.7]))) == [expected, expected]


def test_kept_results_of_another_machine_are_shown_and_not_judged():
    kept = result({"off": OFF, "default": OFF})
    now = result({"off": OFF, "default": [1, 1, 1]}, MACHINE | {"cores": 2})
    assert verdicts(judge.against(now, kept)) == ["not judged: another machine"] * 2


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "RESULTS", tmp_path)
    return tmp_path


def test_the_kept_results_are_as_the_kept_results(results, tmp_path, capsys):
    kept = json.loads((judge.KEPT / "overhead.json").read_text())
    (results / "overhead.json").write_text(json.dumps(kept))
    assert judge.main([str(tmp_path / "nightly" / "bench.md")]) == 0
    assert capsys.readouterr().out.count("as before: ") == 4
    page = (tmp_path / "nightly" / "bench.md").read_text()
    assert "| orders/s of default, of off's | 0.66 (0.58..0.82) | 0.66 (0.58..0.82) | as before |" in page
    assert "**Throughput and cost**" in page


def test_a_slower_shop_fails_the_night(results, tmp_path, capsys):
    slow = copy.deepcopy(json.loads((judge.KEPT / "overhead.json").read_text()))
    for turn in slow["turns"]:
        if turn["row"] == "default":
            turn["per_second"] *= 0.5
    (results / "overhead.json").write_text(json.dumps(slow))
    assert judge.main([str(tmp_path / "bench.md")]) == 1
    assert "WORSE: orders/s of default, of off's: " in capsys.readouterr().out


def test_without_results_it_says_what_to_do(results, tmp_path, capsys):
    assert judge.main([str(tmp_path / "bench.md")]) == 2
    assert "`make bench bench-before` first" in capsys.readouterr().err
