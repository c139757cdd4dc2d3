"""A load test as a person makes it: through the gateway of a real stack, with its report and its exit status."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
import requests
from rich.console import Console

from loadtest import run
from loadtest.records import read_attempts
from loadtest.settings import LoadSettings
from loadtest.shop import Shop
from local import processes
from local.processes import child
from tests.fixtures.ports import free_port
from tests.fixtures.programs import IN_BACKGROUND
from tests.fixtures.services import Client, eventually
from tests.fixtures.stack import PROJECT


class Load:
    """Load tests on the shared stack, with their results in a folder of the test's own."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.metrics_port = free_port()

    @contextmanager
    def running(self, *arguments):
        """A load test; it is ended with the block, if it has not ended before."""
        command = [sys.executable, "-m", "loadtest", "--results", self.folder, "--metrics-port", self.metrics_port]
        with child(
            # As CI begins it: Ctrl-C has to work there too.
            [str(word) for word in (*IN_BACKGROUND, *command, *arguments)],
            cwd=PROJECT,
            env={**os.environ, "RUN_DIR": str(self.stack.run_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
                logs = [log.read_text() for log in self.folder.glob("latest/locust.log")]
                said, _ = process.communicate(timeout=10)
                print(said, *logs)

    @property
    def targets(self):
        return self.stack.run_dir / "conf" / "prometheus" / "targets-load.json"

    @property
    def latest(self):
        return self.folder / "latest"

    @property
    def report(self):
        return json.loads((self.latest / "report.json").read_text())

    def users(self):
        """The users that shop now, as the load test tells Prometheus."""
        try:
            return Client(f"http://127.0.0.1:{self.metrics_port}").metric("loadtest_users")
        except requests.ConnectionError:
            return 0

    def told(self):
        """The orders that clients have been told of until now."""
        return [one for one in read_attempts(self.latest / "orders.jsonl") if one.answer == "told"]


@pytest.fixture
def load(stack, tmp_path):
    return Load(stack, tmp_path / "load")


def test_a_smoke_test_of_a_healthy_shop_is_good_and_leaves_a_report(load, stack):
    with load.running("--shape", "smoke", "--seconds", 5, "--traced", 1) as process:
        eventually(load.targets.exists, 10)
        eventually(lambda: load.users() == 3, 15, pause=0.1)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "GOOD: all limits kept, the books are balanced." in output
    assert not load.targets.exists()
    report = load.report
    names = {(one["method"], one["name"]) for one in report["requests"]}
    assert {("POST", "/auth/login"), ("POST", "/orders/"), ("GET", "/orders/{order_id}")} <= names
    assert report["errors"] == []
    told = load.told()
    assert report["books"]["told"] == len(told) > 0
    kept = f"SELECT count(*) FROM orders.orders WHERE idempotency_key LIKE '{report['run']}-%'"
    assert stack.query(kept) == [(len(told),)]
    for name in ("report.html", "locust.html", "requests.csv", "locust_stats_history.csv"):
        assert (load.latest / name).stat().st_size > 0
    assert report["server"]["services"]["order-service"]["cores"] > 0
    assert 0 < report["generator_cores"] < 2
    slowest = next(one for one in report["slow"] if one["name"] == "/orders/" and one["answer"] == "201")
    trace = f"{stack.jaeger_url}/api/traces/{slowest['trace_id']}"
    spans = eventually(lambda: Client(trace).get("").json()["data"], 10)[0]["spans"]
    assert {"POST /orders/", "settle order"} <= {span["operationName"] for span in spans}


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_with_the_report_and_the_books(load):
    with load.running(
        "--processes", 2, "--users", 4, "--seconds", 100, "--think-seconds", 0, "--mix", "order=1"
    ) as process:
        eventually(lambda: len(load.told()) > 5 if load.latest.exists() else False, 60, pause=0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "GOOD: all limits kept, the books are balanced. It was interrupted." in output
    report = load.report
    assert report["interrupted"] is True
    assert report["books"]["told"] == len(load.told()) == report["books"]["by_status"]["PAID"]
    assert report["books"]["unanswered"] == 0
    assert not load.targets.exists()


@pytest.mark.slow
def test_a_broken_limit_a_lost_order_and_a_killed_worker_decide_the_exit_status(load, stack):
    with load.running(
        "--processes", 2, "--users", 2, "--seconds", 100, "--mix", "order=1", "--min-rate", 1_000_000
    ) as process:
        told = eventually(lambda: load.latest.exists() and load.told(), 60, pause=0.1)
        lost = f"DELETE FROM orders.orders WHERE id = {told[0].order_id} RETURNING payment_id"
        [(payment,)] = stack.query(lost)
        stack.query(f"DELETE FROM payments.payments WHERE id = {payment} RETURNING id")
        [master] = psutil.Process(process.pid).children()
        master.children()[0].kill()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "NOT GOOD: requests a second, load workers, the books. It was interrupted." in output
    assert load.report["books"]["examples"] == [
        f"order {told[0].order_id}: the client was told PAID, and it is not there"
    ]


def test_ctrl_c_while_it_shows_the_run_ends_it_with_its_report_too(tmp_path, monkeypatch):
    looks = []

    def look(_watch):
        looks.append(1)
        if len(looks) == 1:
            raise KeyboardInterrupt

    waits = [sys.executable, "-c", "import signal; signal.pause()"]
    monkeypatch.setattr(run, "ending_with_parent", lambda *_command: waits)
    monkeypatch.setattr(run.Watch, "look", look)
    assert make_load(tmp_path) is True


def make_load(folder):
    target = Shop(host="http://127.0.0.1:1", ask=None, prometheus=None)
    return run._make_load(LoadSettings(), target, "load-test", folder, Console(quiet=True))


DEAF = "import signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]; "


@pytest.mark.parametrize("after", [KeyboardInterrupt, None], ids=["Ctrl-C again", "no more"])
def test_a_locust_that_does_not_end_at_ctrl_c_is_killed_with_its_workers(tmp_path, monkeypatch, after):
    worker = "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    waits = [sys.executable, "-c", f"{DEAF} import subprocess; {worker}; signal.pause()"]
    log = tmp_path / "locust.log"
    interrupts = [KeyboardInterrupt, after]

    def look(_watch):
        if log.read_text().endswith("\n") and interrupts and (interrupt := interrupts.pop(0)):
            raise interrupt

    monkeypatch.setattr(run, "ending_with_parent", lambda *_command: waits)
    monkeypatch.setattr(run.Watch, "look", look)
    monkeypatch.setattr(run, "_STOP_SECONDS", 0)
    monkeypatch.setattr(run, "_END_SECONDS", 0.5 if after is None else 60)
    began = time.monotonic()
    assert make_load(tmp_path) is True
    assert time.monotonic() - began < 20
    eventually(lambda: not is_running(int(log.read_text())))


def is_running(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_fault_of_ours_leaves_no_locust_behind(tmp_path, monkeypatch):
    def look(_watch):
        raise RuntimeError

    waits = [sys.executable, "-c", f"{DEAF} signal.pause()"]
    monkeypatch.setattr(run, "ending_with_parent", lambda *_command: waits)
    monkeypatch.setattr(run.Watch, "look", look)
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", 1)
    with pytest.raises(RuntimeError):
        make_load(tmp_path)
    assert [one for one in psutil.Process().children() if DEAF in " ".join(one.cmdline())] == []


@pytest.mark.slow
def test_ctrl_c_ends_the_page_too(load):
    port = free_port()
    with load.running("--ui", "--ui-port", port) as process:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/"), 30, pause=0.2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode in {0, 1}, output
    assert not answers(f"http://127.0.0.1:{port}/")


def answers(url):
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_its_help_says_what_holds_where_nothing_is_chosen():
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "--help"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "null" not in done.stdout
    assert "Users at the most; by default the shape's." in done.stdout


def refused(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    return done.stderr


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path):
    folder = {"RUN_DIR": str(tmp_path)}
    assert "--allow-remote" in refused("--host", "http://192.0.2.1", **folder)
    assert "No shop answers" in refused("--host", f"http://127.0.0.1:{free_port()}", **folder)
    assert "users: Input should be greater than or equal to 1" in refused("--users", "0", **folder)
    assert "shape" in refused("--shape", "square", **folder)
    assert list(tmp_path.iterdir()) == []
