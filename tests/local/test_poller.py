"""How the supervisor waits: with real pipes and signals, and a stand-in for supervisor."""

import contextlib
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from local.poller import GULP_SECONDS, Poller

LONG = 30  # a wait that nobody sits out: what ends it is what the test is about


class Group:
    def __init__(self, *unstopped):
        self.unstopped = list(unstopped)

    def get_unstopped_processes(self):
        return self.unstopped


@pytest.fixture
def pipes():
    """Make pipes: (where to read, where to write)."""
    with contextlib.ExitStack() as stack:

        def make():
            ends = os.pipe()
            for end in ends:
                stack.callback(os.close, end)
            return ends

        yield make


@pytest.fixture
def supervisord(pipes):
    """A supervisor with one part, which writes to `part`, and a socket for calls, to which `caller` writes."""
    output, part = pipes()
    socket, caller = pipes()
    return SimpleNamespace(
        options=None,
        stop_groups=None,
        get_process_map=lambda: {output: "its dispatcher"},
        output=output,
        part=part,
        socket=socket,
        caller=caller,
    )


@pytest.fixture
def poller(supervisord):
    made = Poller(supervisord)
    made.register_readable(supervisord.output)
    made.register_readable(supervisord.socket)
    yield made
    os.close(signal.set_wakeup_fd(-1))


def test_what_a_part_writes_is_read_at_once_and_then_after_a_pause(poller, supervisord):
    os.write(supervisord.part, b"a line\n")
    assert poller.poll(LONG) == ([supervisord.output], [])
    began = time.monotonic()
    assert poller.poll(LONG) == ([supervisord.output], [])
    assert time.monotonic() - began > GULP_SECONDS / 2


def test_a_call_does_not_wait_for_the_pause(poller, supervisord, monkeypatch):
    monkeypatch.setattr("local.poller.GULP_SECONDS", LONG)
    os.write(supervisord.part, b"a line\n")
    poller.poll(LONG)
    os.write(supervisord.caller, b"call")
    assert poller.poll(LONG) == ([supervisord.socket], [])


def test_the_pause_is_no_longer_than_the_wait(poller, supervisord, monkeypatch):
    monkeypatch.setattr("local.poller.GULP_SECONDS", LONG)
    os.write(supervisord.part, b"a line\n")
    poller.poll(LONG)
    assert poller.poll(0.01) == ([], [])


@pytest.mark.parametrize("pausing", [False, True])
def test_a_signal_ends_the_wait_and_leaves_nothing_behind(poller, supervisord, monkeypatch, pausing):
    monkeypatch.setattr("local.poller.GULP_SECONDS", LONG)
    if pausing:
        os.write(supervisord.part, b"a line\n")
        poller.poll(LONG)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    sending = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGCHLD))
    sending.start()
    try:
        began = time.monotonic()
        assert poller.poll(LONG) == ([], [])
        assert time.monotonic() - began < LONG / 2
    finally:
        sending.join()
        signal.signal(signal.SIGCHLD, before)
    assert poller.poll(0) == ([], [])
    began = time.monotonic()
    assert poller.poll(0.1) == ([], [])
    assert time.monotonic() - began > 0.05


def test_parts_that_are_stopped_are_not_waited_for_when_the_stack_is_stopped(poller, supervisord):
    supervisord.stop_groups = [Group("last"), Group()]
    assert poller.poll(LONG) == ([], [])
    supervisord.stop_groups = [Group(), Group("still there")]
    began = time.monotonic()
    assert poller.poll(0.1) == ([], [])
    assert time.monotonic() - began > 0.05
