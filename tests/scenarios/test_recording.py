"""How a run is recorded, against a small shop whose only fault is that it does not get orders paid."""

import dataclasses
import threading
import time

import pytest

from local import rundir
from scenarios import describing, flags
from scenarios.dataset import recording
from scenarios.dataset.health import HEALTH
from scenarios.dataset.recording import Lengths, NotFelt
from tests.scenarios.test_running import SCENARIO, World

LENGTHS = Lengths(before=0.8, during=0.8, after=0.2)


@pytest.fixture
def world(peer, tmp_path, monkeypatch):
    for name, seconds in (
        *(("_CALM_SECONDS", 2), ("_CALM_WINDOW", 0.4), ("_WARM_SECONDS", 0.5), ("_WINDOW", 0.4)),
        *(("_PAUSE", 0.05), ("_ARRIVES_SECONDS", 0)),
    ):
        monkeypatch.setattr(recording, name, seconds)
    path = tmp_path / "flags" / "flags.json"
    rundir.switch_faults_off(path)
    return World(peer(), path)


def record(world, asked=lambda: None, scenario=None):
    scenario = scenario or describing.parse("small", SCENARIO)
    return recording.record(scenario, world.place, 1, LENGTHS, lambda _: None, asked)


def test_it_notes_when_what_was_and_what_was_felt(world):
    began, on = time.time(), []
    found = record(world, lambda: on.append(world.on))
    assert began < found.start
    assert found.start == pytest.approx(found.on - 0.8, abs=0.001)
    assert found.on + 0.8 <= found.off <= found.end - 0.2
    assert found.end <= time.time()
    assert (found.before, found.during) == (0, 1)
    assert on == [True]  # a tool is asked while the fault lasts
    assert not world.on


def test_a_fault_that_nobody_feels_is_no_example_and_is_off_again(world):
    world.hurts = False
    with pytest.raises(NotFelt, match="Nobody felt it"):
        record(world)
    assert not world.on


def test_a_shop_that_is_not_calm_is_no_beginning(world):
    world.always.add("PaymentOutage")
    with pytest.raises(NotFelt, match="does not become calm: PaymentOutage"):
        record(world)


def test_it_begins_when_all_has_been_well_for_long_enough(world, monkeypatch):
    flags.switch(world.path, "payment-down", "on")
    monkeypatch.setattr(recording, "_calm", lambda *_: None)

    def say(line):
        if "before the fault" in line:
            threading.Timer(0.3, flags.switch, (world.path, "payment-down", "off")).start()

    scenario = describing.parse("small", SCENARIO)
    found = recording.record(scenario, world.place, 1, LENGTHS, say)
    assert found.before <= scenario.effect.before


def test_a_shop_that_is_never_well_for_long_enough_is_no_beginning(world, monkeypatch):
    flags.switch(world.path, "payment-down", "on")
    monkeypatch.setattr(recording, "_calm", lambda *_: None)
    with pytest.raises(NotFelt, match=r"not calm before the fault \(pending of POST /orders/: 100%\)"):
        record(world)


def test_ctrl_c_switches_the_fault_off(world):
    def interrupt():
        assert world.on
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(world, interrupt)
    assert not world.on


def test_in_health_nothing_is_switched(world):
    on = []
    found = record(world, lambda: on.append(world.on), HEALTH)
    assert on == [False]
    assert found.during <= HEALTH.effect.before


def test_a_slow_shop_is_no_health(world):
    strict = HEALTH.effect.model_copy(update={"before": 1e-9})
    with pytest.raises(NotFelt):
        record(world, scenario=HEALTH.model_copy(update={"effect": strict}))


def test_a_minute_before_and_a_minute_of_it_are_recorded():
    assert dataclasses.astuple(Lengths()) == (60, 60, 15)
