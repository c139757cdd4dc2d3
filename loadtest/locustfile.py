"""What Locust runs: `locust -f loadtest/locustfile.py`. `python -m loadtest` starts it with all it needs.

The wires only: the users' journeys, the shape, the metrics, what is written down.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import request
from locust import LoadTestShape, constant, events, runners
from locust.runners import LocalRunner, MasterRunner, WorkerRunner
from locust.user.wait_time import between

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from loadtest import stats
from loadtest.journeys import Shopper, journey
from loadtest.metrics import LoadTestMetrics, Outcome
from loadtest.records import Collected, Ledger, Slow
from loadtest.settings import LoadSettings
from loadtest.shop import refuse_remote
from loadtest.tokens import Tokens
from local.errors import LocalError
from local.processes import hear_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from locust.web import WebUI

SETTINGS = LoadSettings()
PLAN = SETTINGS.plan()
COLLECTED = Collected()
METRICS = LoadTestMetrics()

# By default workers report every 3 s, and a stage of 5 s would get the requests of 3 or of 6.
runners.WORKER_REPORT_INTERVAL = 0.5

hear_ctrl_c()  # this is how `python -m loadtest` ends it


class Customer(Shopper):
    """A shopper with the journeys that were chosen."""

    tasks = [journey(name) for name, weight in SETTINGS.weights().items() for _ in range(weight)]
    wait_time = between(0.5 * PLAN.think_seconds, 1.5 * PLAN.think_seconds) if PLAN.think_seconds else constant(0)
    tokens = Tokens(SETTINGS.logins_per_second / SETTINGS.processes)
    collected = COLLECTED
    metrics = METRICS
    traced_share = SETTINGS.traced
    credentials = {"username": SETTINGS.username, "password": SETTINGS.password.get_secret_value()}


if not SETTINGS.ui:

    class Planned(LoadTestShape):
        """The shape that was chosen. With the page, who looks at it decides."""

        def tick(self) -> tuple[int, float] | None:
            """Give the users of now, and how many come a second."""
            stage = PLAN.at(self.get_run_time())
            return (stage.users, stage.spawn_rate) if stage else None


@events.init_command_line_parser.add_listener
def _more_arguments(parser: LocustArgumentParser, **_: Any) -> None:
    # Workers get these from the master.
    parser.add_argument("--run-id", default="load-unnamed", include_in_web_ui=False, help="begins the orders' keys")


@events.request.add_listener
def _request(  # noqa: PLR0913, PLR0917  # Locust's signature
    request_type: str,
    name: str,
    response_time: float,
    exception: Exception | None,
    context: dict[str, Any],
    response: Any,
    start_time: float,
    **_: Any,
) -> None:
    status = str(response.status_code or "none") if response is not None else "none"
    trace_id = context["trace_id"] or _trace_id(response)
    outcome: Outcome = "failed" if exception else "expected" if context["expected"] else "ok"
    METRICS.request(request_type, context["route"], outcome, response_time / 1000, trace_id)
    COLLECTED.slow(Slow(response_time, request_type, name, status, start_time, trace_id))


def _trace_id(response: Any) -> str:
    """Read the id of a trace that the gateway began and keeps."""
    headers = getattr(response, "headers", None)
    match str(headers.get("traceresponse", "")).split("-") if headers else []:
        case [_, trace_id, _, flags] if int(flags, 16) & 1:
            return trace_id
    return ""


def _refuse_other_machines(page: WebUI) -> None:
    """Check the host that is typed into the page, too."""
    app: Flask = page.app  # type: ignore[assignment]  # None before it is made

    @app.before_request
    def check() -> tuple[dict[str, Any], int] | None:
        host = request.form.get("host")
        try:
            if host and not SETTINGS.allow_remote:
                refuse_remote(host)
        except LocalError as error:
            return {"success": False, "message": str(error)}, 400
        return None


@events.init.add_listener
def _start(environment: Environment, web_ui: WebUI | None, **_: Any) -> None:
    runner = environment.runner
    if runner is None:
        return
    if web_ui:
        _refuse_other_machines(web_ui)
    folder = os.environ.get("LOAD_RUN_FOLDER")
    index = runner.worker_index + 1 if isinstance(runner, WorkerRunner) and SETTINGS.processes > 1 else 0
    METRICS.serve(SETTINGS.metrics_host, SETTINGS.metrics_port + index)
    if isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(lambda client_id, data: data.update(COLLECTED.drain()))
        runner.register_message(_FINISH, _finish_users, concurrent=True)
        _in_background(_count_users, runner)
        return
    if folder is None:
        sys.exit("LOAD_RUN_FOLDER is missing: start the load test with `python -m loadtest`.")
    ledger = Ledger(Path(folder) / "orders.jsonl")
    history = stats.History(Path(folder) / "history.jsonl", runner.stats, PLAN)
    if isinstance(runner, LocalRunner):  # a master has no users of its own
        _in_background(_count_users, runner)
    workers = _Workers(environment, runner) if isinstance(runner, MasterRunner) else None
    environment.events.worker_report.add_listener(
        lambda client_id, data: ledger.add({"attempts": data.pop("attempts", []), "slow": data.pop("slow", [])})
    )

    def write_down() -> None:
        while True:
            ledger.add(COLLECTED.drain())
            history.note(runner.user_count)
            if workers:
                workers.note()
            time.sleep(1)

    _in_background(write_down)

    @environment.events.quit.add_listener
    def finish(**_: Any) -> None:
        ledger.add(COLLECTED.drain())
        history.finish()
        result = stats.result(runner.stats, ledger.slowest(), history.stages)
        result["users"] = history.most_users
        result["workers"] = {"began": workers.began, "ended": workers.ended} if workers else None
        result["generator_was_busy"] = bool(getattr(runner, "cpu_warning_emitted", False))
        (Path(folder) / "locust.json").write_text(json.dumps(result), encoding="utf-8")


_FINISH, _FINISHED = "finish", "finished"


def _finish_users(environment: Environment, **_: Any) -> None:
    """Let a worker's users finish what they do, and tell the master what is left to tell."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        runner.stop()
        runner._send_stats()  # noqa: SLF001  # the report that comes by itself in a moment
        runner.send_message(_FINISHED)


class _Workers:
    """A master's workers: how many a run has, and how many are there at its end.

    One that was killed took with it what it had to tell, and the load was less than it was to be.
    """

    def __init__(self, environment: Environment, runner: MasterRunner) -> None:
        self.began = self.ended = 0
        self._environment, self._runner = environment, runner
        self._over = False
        self._finished: set[str] = set()
        runner.register_message(_FINISHED, lambda environment, msg: self._finished.add(msg.node_id))
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._wait)

    def note(self) -> None:
        """Count those of now."""
        if not self._over:
            self.ended = self._runner.worker_count
            self.began = max(self.began, self.ended)

    def _start(self, **_: Any) -> None:
        self.began, self._over = 0, False  # the page starts one run after the other
        self.note()

    def _wait(self, **_: Any) -> None:
        """Wait for their last reports: of its own the master gives them half a second, and then goes."""
        if self._runner.user_count:
            self._finished.clear()
            self._runner.send_message(_FINISH)
            deadline = time.monotonic() + self._environment.stop_timeout + 5
            while len(self._finished) < self._runner.worker_count and time.monotonic() < deadline:
                time.sleep(0.1)
            self.ended = len(self._finished)
        else:  # stopped from the page: they have reported, and come back for the next run
            deadline = time.monotonic() + 2
            while self._runner.worker_count < self.began and time.monotonic() < deadline:
                time.sleep(0.1)
            self.ended = self._runner.worker_count
        self._over = True


def _in_background(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()  # a greenlet, since Locust has patched threads


def _count_users(runner: Any) -> None:
    while True:
        METRICS.users.set(runner.user_count)
        time.sleep(1)
