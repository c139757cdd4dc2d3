"""The end of child processes is bounded, whatever they do with signals."""

import signal
import subprocess
import sys

import psutil
import pytest

from local import processes
from tests.fixtures.services import eventually

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
FATHER = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid); "


def start(code, **options):
    process = subprocess.Popen(
        [sys.executable, "-uc", f"{code}print('begun'); signal.pause()"], stdout=subprocess.PIPE, text=True, **options
    )
    said = iter(process.stdout.readline, "begun\n")
    return process, [int(line) for line in said]


@pytest.mark.parametrize(
    ("code", "status"), [("import signal; ", -signal.SIGTERM), (DEAF, -signal.SIGKILL)], ids=["polite", "deaf"]
)
def test_a_child_is_asked_to_end_and_killed_when_it_does_not(code, status):
    process, _ = start(code)
    assert processes.end(process, 0.5) == status
    assert processes.end(process) == status
    process.stdout.close()


def test_a_deaf_leader_is_killed_with_its_group():
    process, [child] = start(DEAF + FATHER, start_new_session=True)
    assert processes.end(process, 0.2) == -signal.SIGKILL
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    process.stdout.close()


def test_a_ctrl_c_that_comes_while_a_child_starts_leaves_none_running(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), processes.child(["sleep", "60"]):
        pytest.fail("the block ran")
    assert started[0].returncode == -signal.SIGTERM
