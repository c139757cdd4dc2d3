import threading
import time

from structlog.testing import capture_logs

from servicekit.process.background import Periodic
from tests.fixtures.services import eventually


def _running(work):
    task = Periodic("sweep", 0.01, work)
    task.start()
    return task


def test_a_round_that_fails_is_logged_and_the_next_one_comes():
    rounds = []

    def work(_stopping):
        rounds.append(1)
        raise RuntimeError("canary")

    with capture_logs() as events:
        task = _running(work)
        eventually(lambda: len(rounds) >= 3)
        task.stop()
    failed = [event for event in events if event["event"] == "task.failed"]
    assert len(failed) >= 3
    assert failed[0]["task"] == "sweep"
    assert isinstance(failed[0]["exc_info"], RuntimeError)


def test_stopping_waits_for_the_round_at_hand_and_no_other_follows():
    begun, ended = threading.Event(), []

    def work(stopping):
        begun.set()
        eventually(stopping)
        ended.append(1)

    task = Periodic("sweep", 0.01, work)
    task.start()
    begun.wait(5)
    assert task.stop()
    assert ended == [1]
    assert "sweep" not in {thread.name for thread in threading.enumerate()}


def test_stopping_waits_no_longer_than_told():
    begun, release = threading.Event(), threading.Event()

    def work(_stopping):
        begun.set()
        release.wait(10)

    task = _running(work)
    begun.wait(5)
    started = time.monotonic()
    assert not task.stop(timeout_seconds=0.1)
    assert time.monotonic() - started < 1
    release.set()
    eventually(lambda: "sweep" not in {thread.name for thread in threading.enumerate()})
