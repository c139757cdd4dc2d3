"""How many users there are at which time."""

import pytest
from pydantic import ValidationError

from loadtest.settings import LoadSettings, weights
from loadtest.shapes import named

SHAPES = ("smoke", "steady", "ramp", "spike", "soak")


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_takes_the_time_and_the_users_that_are_asked_for(name):
    shape = named(name, users=12, seconds=40)
    assert shape.seconds == pytest.approx(40)
    assert shape.users == 12
    assert max(shape.at(second).users for second in range(40)) == 12
    assert shape.at(40.1) is None


def test_a_ramp_doubles_the_users_and_ends_with_those_that_were_asked_for():
    assert [stage.users for stage in named("ramp", users=20, seconds=60).stages] == [1, 2, 4, 8, 16, 20]
    assert [stage.users for stage in named("ramp", users=1).stages] == [1]


def test_a_spike_comes_in_the_middle_and_goes_away_again():
    shape = named("spike", users=50, seconds=100)
    assert [shape.at(second).users for second in (0, 39, 41, 59, 61, 99)] == [10, 10, 50, 50, 10, 10]


@pytest.mark.parametrize("name", SHAPES)
def test_the_users_of_a_stage_are_there_for_most_of_it(name):
    for stage in named(name).stages:
        assert stage.users / stage.spawn_rate <= stage.seconds / 5


def test_only_a_ramp_is_a_closed_loop():
    assert [name for name in SHAPES if named(name).think_seconds == 0] == ["ramp"]


def test_flags_win_over_variables_and_variables_over_the_shapes_own_numbers(monkeypatch):
    monkeypatch.setenv("LOAD_USERS", "7")
    monkeypatch.setenv("LOAD_SECONDS", "33")
    monkeypatch.setenv("LOAD_P95_MS", "")
    settings = LoadSettings(_cli_parse_args=["--shape", "smoke", "--seconds", "11", "--max-failed", "0.5"])
    plan = settings.plan()
    assert (plan.users, plan.seconds, plan.limits.max_failed) == (7, 11, 0.5)
    assert plan.limits.p95_ms == named("smoke").limits.p95_ms


def test_the_processes_that_make_the_load_read_the_same_settings(monkeypatch):
    settings = LoadSettings(_cli_parse_args=["--shape", "ramp", "--mix", "order=3", "--password", "a secret"])
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert LoadSettings() == settings


@pytest.mark.parametrize("mix", ["order", "order=-1", "orders=1", "", "order=0", "order=1.5"])
def test_a_mix_that_cannot_be_is_refused(mix):
    with pytest.raises(ValueError, match=r"order|journey"):
        weights(mix)
    with pytest.raises(ValidationError):
        LoadSettings(mix=mix)


def test_a_mix_says_how_often_each_journey_is_made():
    assert weights("order=7, browse=3 decline=0") == {"order": 7, "browse": 3}
