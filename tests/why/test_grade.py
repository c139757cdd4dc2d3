"""How good an answer is, where the truth is known; and three simple methods that are graded alike."""

import pytest

from observability.why.baselines import BASELINES
from observability.why.diagnose import diagnose
from observability.why.grade import grade, summary
from tests.why.world import Fault, World

TRUTH = {"service": "c", "operation": "decide charge", "attribute": {"key": "product", "value": "7"}}


def cause(service, operation="", *attributes):
    told = [{"key": key, "value": value} for key, value in attributes]
    return {"service": service, "operation": operation, "attributes": told}


RIGHT = cause("c", "Decide  charge", ("product", "7"))


@pytest.mark.parametrize(
    ("causes", "right"),
    [
        ([RIGHT], {"service@1", "service@3", "operation@1", "operation@3", "attribute@1", "attribute@3"}),
        ([cause("x"), RIGHT], {"service@3", "operation@3", "attribute@3"}),
        ([cause("c", "other"), RIGHT], {"service@1", "service@3", "operation@3", "attribute@3"}),
        ([cause("x", "decide charge", ("product", "7"))], set()),  # right only by its name: another service's
        ([cause("c", "", ("size", "1"), ("product", "7"))], {"service@1", "service@3", "attribute@3"}),
        ([cause("x"), cause("y"), cause("z"), RIGHT], set()),
        ([], set()),
    ],
)
def test_each_level_is_graded_by_itself(causes, right):
    grades = grade({"causes": causes}, TRUTH)
    assert grades.pop("false_alarm") is None
    assert {name for name, value in grades.items() if value} == right
    assert set(grades.values()) <= {True, False}


def test_one_of_several_that_are_right_will_do():
    truth = {"service": ["c", "order-db"], "operation": ["UPDATE", "INSERT"], "attribute": [{"key": "a"}, {"key": "b"}]}
    grades = grade({"causes": [cause("order-db", "INSERT", ("b", "any"))]}, truth)
    assert all(value for name, value in grades.items() if name != "false_alarm")


def test_what_the_truth_says_nothing_of_is_not_graded():
    grades = grade({"causes": [RIGHT]}, {"service": "c"})
    assert grades["service@1"] is True
    assert grades["operation@1"] is None
    assert grades["attribute@3"] is None


@pytest.mark.parametrize(("state", "alarm"), [("wrong", True), ("over", False), (None, True)])
def test_in_health_a_cause_that_is_named_is_a_false_alarm(state, alarm):
    answer = {"causes": [RIGHT]} | ({"state": state} if state else {})
    assert grade(answer, {})["false_alarm"] is alarm


@pytest.mark.parametrize("answer", [{}, {"causes": None}, {"causes": [7, None, {"service": None, "attributes": 3}]}])
def test_an_answer_of_another_form_is_a_wrong_one(answer):
    assert not any(grade(answer, TRUTH).values())


def test_the_share_of_right_ones_is_told():
    shares = summary([grade({"causes": [RIGHT]}, TRUTH), grade({}, TRUTH), grade({"causes": [RIGHT]}, {})])
    assert shares["service@1"] == 0.5
    assert shares["false_alarms"] == 1


@pytest.mark.parametrize("name", BASELINES)
def test_a_simple_method_answers_in_the_same_form(name):
    evidence = World(faults=[Fault(service="shop-c", name="decide", extra_ms=900)]).gather()
    truth = {"service": "shop-c", "operation": "decide"}
    answer = BASELINES[name](evidence).plain()
    assert 0 < len(answer["causes"]) <= 5
    assert {cause["service"] for cause in answer["causes"]} <= evidence.services
    assert set(grade(answer, truth).values()) <= {True, False, None}
    assert grade(diagnose(evidence).plain(), truth)["operation@1"] is True


@pytest.mark.parametrize("name", BASELINES)
def test_a_simple_method_without_data_names_nothing(name):
    assert BASELINES[name](World(rate=0, seconds=1).gather()).causes == []


@pytest.mark.parametrize("name", ["metric rise (BARO)", "operations (TraceRCA)"])
def test_a_published_method_sees_what_fails_without_being_slow(name):
    evidence = World(faults=[Fault(service="shop-c", name="decide", error="Broken")]).gather()
    causes = BASELINES[name](evidence).plain()["causes"]
    # All six on the way to the user fail as often, and five are named: neither method can tell which was first.
    assert ("shop-c", "error") in {(cause["service"], cause["kind"]) for cause in causes}


@pytest.mark.parametrize("name", BASELINES)
def test_a_simple_method_names_an_operation_once_and_says_the_same_each_time(name):
    world = World(faults=[Fault(service="shop-c", name="decide", extra_ms=900, error="Broken")])
    causes = BASELINES[name](world.gather()).plain()["causes"]
    named = [(cause["service"], cause["operation"]) for cause in causes]
    assert len(set(named)) == len(named)
    assert BASELINES[name](world.gather()).plain()["causes"] == causes
