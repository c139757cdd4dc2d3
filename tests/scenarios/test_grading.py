"""The grader: answers of any tool, beside the truth of the runs they are about."""

import json

import jsonschema
import pytest

from observability.why.answer import Answer, Attribute, Cause
from scenarios import cli, grading

RIGHT = {
    "causes": [
        {
            "service": "payment-service",
            "operation": "decide charge",
            "attributes": [{"key": "shop.product.id", "value": 25}],
        }
    ]
}
SECOND = {"causes": [{"service": "nginx"}, *RIGHT["causes"]]}
TRUTH = {
    "scenario": "currency-slow",
    "service": "payment-service",
    "operation": "decide charge",
    "attribute": {"key": "shop.product.id", "value": "25"},
}


@pytest.fixture
def runs(tmp_path):
    """Three runs: two of a fault, and one of health."""
    for name, truth in (("run-a", TRUTH), ("run-b", TRUTH), ("run-c", {"service": None})):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "truth.json").write_text(json.dumps(truth))
    return tmp_path / "runs"


@pytest.fixture
def answers(tmp_path):
    """Write answers by the names of their runs; the folder."""

    def write(**said):
        folder = tmp_path / "answers"
        folder.mkdir(exist_ok=True)
        for name, answer in said.items():
            text = answer if isinstance(answer, str) else json.dumps(answer)
            (folder / f"{name.replace('_', '-')}.json").write_text(text)
        return folder

    return write


def graded(capsys, *arguments, status=0):
    assert cli.main(["grade", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_each_run_and_all_together_are_graded(runs, answers, capsys):
    said = graded(capsys, "--truth", runs, answers(run_a=RIGHT, run_b=SECOND, run_c={"causes": []}))
    by_run = {one["run"]: one for one in said["runs"]}
    for part in ("service", "operation", "attribute"):
        assert (by_run["run-a"][f"{part}@1"], by_run["run-a"][f"{part}@3"]) == (True, True)
        assert (by_run["run-b"][f"{part}@1"], by_run["run-b"][f"{part}@3"]) == (False, True)
        assert (said["total"][f"{part}@1"], said["total"][f"{part}@3"]) == (0.5, 1.0)
    assert said["not_answered"] == []


def test_a_run_without_an_answer_is_wrong_and_told(runs, answers, capsys):
    said = graded(capsys, "--truth", runs, answers(run_a=RIGHT), status=1)
    assert said["not_answered"] == ["run-b", "run-c"]
    by_run = {one["run"]: one for one in said["runs"]}
    assert (by_run["run-a"]["service@1"], by_run["run-b"]["service@1"]) == (True, False)
    assert "no answer for run-b" in by_run["run-b"]["problem"]
    assert said["total"]["service@1"] == said["total"]["attribute@3"] == 0.5
    assert said["total"]["false_alarms"] == 1  # of the run of health


def test_people_read_which_runs_have_no_answer(runs, answers, capsys):
    assert cli.main(["grade", "--truth", str(runs), str(answers(run_a=RIGHT))]) == 1
    told = capsys.readouterr()
    lines = told.out.splitlines()
    [total] = [line.split() for line in lines if line.startswith(" all")]
    assert total == ["all", "3", *["50%"] * 6]
    assert "Not answered, and counted as wrong: run-b, run-c." in lines
    assert "Causes named in health: 0. Without a usable answer in health: 1." in lines
    assert "There is no answer for run-b" in told.err


def test_only_the_first_three_causes_count_however_many_there_are(runs, answers, capsys):
    late = {"causes": [{"service": f"service-{number}"} for number in range(3)] + RIGHT["causes"] * 10_000}
    said = graded(capsys, "--truth", runs / "run-a", answers(run_a=late))
    assert said["total"]["service@3"] == 0


def test_an_answer_that_is_no_json_is_told_with_its_place(runs, answers, capsys):
    text = '{"causes": [\n{"service": "payment-service",}]}'
    assert cli.main(["grade", "--truth", str(runs / "run-a"), str(answers(run_a=text))]) == 1
    told = capsys.readouterr().err
    assert "run-a.json is no answer" in told
    assert "line 2 column 31" in told


def test_people_get_a_table(runs, answers, capsys):
    assert cli.main(["grade", "--truth", str(runs), str(answers(run_a=RIGHT, run_b=SECOND, run_c=RIGHT))]) == 0
    lines = capsys.readouterr().out.splitlines()
    [total] = [line.split() for line in lines if line.startswith(" all")]
    assert total == ["all", "3", "50%", "100%", "50%", "100%", "50%", "100%"]
    [first] = [line.split() for line in lines if line.startswith(" run-a")]
    assert first == ["run-a", "currency-slow", *["yes"] * 6]
    assert "Causes named in health: 1." in lines


def test_one_answer_about_one_run_may_have_any_name(runs, answers, capsys):
    said = graded(capsys, "--truth", runs / "run-a", answers(mine=RIGHT) / "mine.json")
    assert said["total"]["service@1"] == 1


def test_an_answer_may_lie_in_a_folder_that_is_called_as_its_run(runs, tmp_path, capsys):
    (tmp_path / "mine" / "run-b").mkdir(parents=True)
    (tmp_path / "mine" / "run-b" / "answer.json").write_text(json.dumps(RIGHT))
    said = graded(capsys, "--truth", runs, tmp_path / "mine", status=1)
    assert [one["run"] for one in said["runs"] if not one["problem"]] == ["run-b"]


@pytest.mark.parametrize("answer", [{"causes": []}, {"causes": [], "state": "well"}, {**RIGHT, "state": "well"}])
def test_who_says_that_nothing_is_wrong_is_wrong_in_a_fault_and_right_in_health(runs, answers, capsys, answer):
    said = graded(capsys, "--truth", runs, answers(run_a=answer, run_b=answer, run_c=answer))
    assert said["total"]["service@3"] == 0
    assert said["total"]["false_alarms"] == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "JSON"),
        ("the payment service is slow", "JSON"),
        ("[]", "object"),
        ("{}", "causes: Field required"),
        ({"causes": {}}, "causes"),
        ({"causes": [{"operation": "decide charge"}]}, "causes.0.service: Field required"),
        ({"causes": [{"service": 7}]}, "causes.0.service"),
        ({"causes": [{"service": ""}]}, "causes.0.service"),
        ({"causes": [{"service": "a", "attributes": [{"value": "x"}]}]}, "causes.0.attributes.0.key"),
        ({"causes": [{"service": "a", "attributes": {"shop.product.id": 7}}]}, "causes.0.attributes"),
    ],
)
def test_an_answer_that_will_not_do_is_wrong_and_told_with_what_one_looks_like(runs, answers, capsys, answer, says):
    status = cli.main(["grade", "--truth", str(runs), str(answers(run_a=answer, run_b=RIGHT)), "--json"])
    told = capsys.readouterr()
    assert status == 1
    assert all(part in told.err for part in ("run-a.json is no answer", says, '{"causes": [{"service"', "schema"))
    said = json.loads(told.out)
    assert said["total"]["service@1"] == 0.5
    assert [bool(one["problem"]) for one in said["runs"]] == [True, False, True]


def test_what_a_tool_says_beside_its_causes_is_its_own(runs, answers, capsys):
    said = graded(capsys, "--truth", runs / "run-a", answers(run_a={**RIGHT, "model": "ours", "seconds": 3}))
    assert said["total"]["attribute@1"] == 1


def test_what_make_why_says_is_an_answer(runs, answers, capsys):
    attribute = Attribute(key="shop.product.id", value="25")
    cause = Cause(service="payment-service", operation="decide charge", attributes=[attribute])
    ours = Answer(state="wrong", causes=[cause])
    assert graded(capsys, "--truth", runs / "run-a", answers(run_a=ours.plain()))["total"]["attribute@1"] == 1
    jsonschema.validate(ours.plain(), json.loads(grading.SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--truth", "nowhere", "answers"], "There is no truth.json in nowhere"),
        (["--truth", "runs", "nowhere"], "Which run is nowhere about?"),
        (["--truth", "runs/run-a", "answers/run-b.json"], "Which run is answers/run-b.json about?"),
        (["--truth", "runs/run-a", "answers"], "Which run is answers/run-b.json about?"),
        (["--truth", "runs", "runs/run-a"], "There is no answer in runs/run-a"),
        (["--truth", "runs", "empty"], "There is no answer in empty"),
        (["--truth", "runs", "answers", "answers/run-a.json"], "There are two answers for run-a"),
    ],
)
def test_what_is_not_there_is_told(runs, answers, tmp_path, monkeypatch, capsys, arguments, says):
    answers(run_a=RIGHT, run_b=RIGHT)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grade", *arguments]) == 1
    assert says in capsys.readouterr().err


def test_a_missing_file_with_a_runs_name_is_told(runs, capsys, tmp_path):
    status = cli.main(["grade", "--truth", str(runs), str(tmp_path / "run-a.json")])
    assert status == 1
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_a_truth_that_cannot_be_read_is_told(runs, answers, capsys):
    (runs / "run-a" / "truth.json").write_text("{")
    assert cli.main(["grade", "--truth", str(runs), str(answers(run_a=RIGHT))]) == 1
    assert "truth.json cannot be read" in capsys.readouterr().err


def test_the_schema_in_the_file_is_the_graders_own():
    assert grading.SCHEMA.read_text() == grading.schema(), "write it anew from scenarios.grading.schema()"
    jsonschema.Draft202012Validator.check_schema(json.loads(grading.schema()))


@pytest.mark.parametrize("answer", [{}, {"causes": [{}]}, {"causes": [{"service": "a", "attributes": [{}]}]}])
def test_the_schema_refuses_what_the_grader_refuses(answer):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, json.loads(grading.SCHEMA.read_text()))
