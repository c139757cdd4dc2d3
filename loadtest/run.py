"""A load test from its start to its report: starts Locust, watches it, checks the books, judges."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from pydantic import ValidationError
from pydantic_settings import CliSettingsSource
from rich.console import Console

from loadtest import books, limits, report, server, shop
from loadtest.errors import LoadError
from loadtest.progress import Watch
from loadtest.records import read_attempts
from loadtest.settings import LoadSettings
from local import ports
from local.errors import LocalError
from local.parts import ending_with_parent
from local.processes import child, hear_ctrl_c, kill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtest.shop import Shop

GOOD, NOT_GOOD, NOT_MADE, INTERRUPTED = 0, 1, 2, 130

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_PIPE_COLUMNS = 160
_STOP_SECONDS = 20
"""How long requests in flight may take at the end; as long as a client waits for an answer."""
_END_SECONDS = 30
"""How long Locust may take for the rest when it is told to end; then it is killed."""


def main(argv: Sequence[str]) -> int:
    """Make a load test.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The exit status: 0 good, 1 a limit is broken or the books are wrong, 2 it could not be made, 130 interrupted
        and good until then.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    hear_ctrl_c()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` is Ctrl-C
    try:
        return _run(_settings(argv), console)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", file=sys.stderr)
        return NOT_MADE
    except LocalError as error:
        print(error, file=sys.stderr)
        return NOT_MADE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Help(argparse.RawDescriptionHelpFormatter):
    """Leaves out what says nothing: where there is no default of its own, the words say what holds."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and action.help.replace(" (default: null)", "")


def _settings(argv: Sequence[str]) -> LoadSettings:
    source: CliSettingsSource[Any] = CliSettingsSource(
        LoadSettings, cli_prog_name="python -m loadtest", cli_parse_args=list(argv), formatter_class=_Help
    )
    return LoadSettings(_cli_settings_source=source)  # type: ignore[call-arg]


def _run(settings: LoadSettings, console: Console) -> int:
    target = shop.find(settings, os.environ)
    _require_gateway(target.host)
    _require_port(settings)
    run = f"load-{secrets.token_hex(4)}"
    folder = _results(target.folder)
    plan = settings.plan()
    if settings.ui:
        console.print(f"http://127.0.0.1:{settings.ui_port} starts and stops the load on {target.host}; Ctrl-C ends.")
    else:
        console.print(f"{plan.name} on {target.host}: up to {plan.users} users, {plan.seconds:.0f} s; Ctrl-C ends it.")
    for note in target.notes:
        console.print(note)
    with _told_to_prometheus(target, settings):
        interrupted = _make_load(settings, target, run, folder, console)
    ended = folder / "locust.json"
    if not ended.exists():
        raise LoadError(f"Locust ended without a result: {folder / 'locust.log'} says why.")
    result: dict[str, Any] = json.loads(ended.read_text(encoding="utf-8"))
    balance = None
    if target.ask:
        console.print("checking the books ...")
        balance = books.check(
            target.ask, run, read_attempts(folder / "orders.jsonl"), settings.settle_seconds
        ).summary()
    verdicts = limits.judge(plan.limits, result)
    good = all(verdict.kept for verdict in verdicts) and (balance is None or balance["balanced"])
    outcome = {
        "run": run,
        "shape": "from the page" if settings.ui else plan.name,
        "seconds": result["ended"] - result["began"],
        "host": target.host,
        "interrupted": interrupted and not settings.ui,
        "good": good,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        "knee": limits.knee(result["stages"]) if plan.name == "ramp" else None,
        "notes": [*target.notes, *([refusal] if (refusal := limits.held_back(result)) else [])],
        "books": balance,
        "server": _server_view(target, result),
        "generator_cores": _cores(result),
        **result,
    }
    report.write(folder, outcome)
    console.print()
    report.show(console, outcome)
    console.print(f"{folder / 'report.html'}")
    return NOT_GOOD if not good else INTERRUPTED if outcome["interrupted"] else GOOD


def _make_load(settings: LoadSettings, target: Shop, run: str, folder: Path, console: Console) -> bool:
    """Run Locust to its end; whether it was interrupted."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--host", target.host]
    command += ["--run-id", run, "--stop-timeout", str(_STOP_SECONDS), "--exit-code-on-error", "0"]
    command += ["--csv", str(folder / "locust"), "--html", str(folder / "locust.html"), "--loglevel", "WARNING"]
    if settings.ui:
        command += ["--web-host", "127.0.0.1", "--web-port", str(settings.ui_port)]
    else:
        command += ["--headless", "--only-summary"]
    if settings.workers:
        command += ["--master", "--expect-workers", str(settings.workers)]
    elif settings.processes > 1:
        port = str(ports.free(1)[0])
        command += ["--processes", str(settings.processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    environment = {**os.environ, **settings.environment(), "LOAD_RUN_FOLDER": str(folder)}
    seconds = None if settings.ui else settings.plan().seconds
    hear_ctrl_c()  # Locust must not inherit that it is ignored
    with (
        (folder / "locust.log").open("w") as log,
        Watch(console, folder / "history.jsonl", seconds) as watch,
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        child(
            ending_with_parent("INT", *command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        deadline = math.inf
        interrupted = False
        while process.returncode is None:
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                watch.look()
                if time.monotonic() > deadline:
                    kill(process)
            except KeyboardInterrupt:
                if interrupted:
                    kill(process)
                else:
                    process.send_signal(signal.SIGINT)
                    deadline = time.monotonic() + _STOP_SECONDS + _END_SECONDS
                    interrupted = True
                    watch.say("ending, with the report; Ctrl-C again to give up")
        return interrupted


def _server_view(target: Shop, result: dict[str, Any]) -> dict[str, Any] | None:
    if target.prometheus is None or not result["total"]["count"]:
        return None
    prometheus = server.Prometheus(target.prometheus)
    return prometheus.view(result["began"], result["ended"]) if prometheus.reachable() else None


def _cores(result: dict[str, Any]) -> float:
    """Reckon what Locust's processes, which have ended, took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds: float = result["ended"] - result["began"]
    return (used.ru_utime + used.ru_stime) / max(seconds, 1.0)


def _require_gateway(host: str) -> None:
    try:
        status = urllib3.request("GET", f"{host}/healthz", timeout=5, retries=False).status
    except urllib3.exceptions.HTTPError:
        status = 0
    if status != HTTPStatus.OK:
        raise LoadError(f"No shop answers at {host}: start it with `make up`, or name another with --host.")


def _require_port(settings: LoadSettings) -> None:
    for port in _metrics_ports(settings):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.metrics_host, port))
            except OSError as error:
                text = (
                    f"Port {port} is for the load test's metrics and is taken: choose another with LOAD_METRICS_PORT."
                )
                raise LoadError(text) from error


def _metrics_ports(settings: LoadSettings) -> range:
    more = settings.processes if settings.processes > 1 and not settings.workers else 0
    return range(settings.metrics_port, settings.metrics_port + 1 + more)


def _results(folder: Path) -> Path:
    """Make the folder of this run, and let `latest` lead to it.

    Raises:
        LoadError: It cannot be made.
    """
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    try:
        (folder / name).mkdir(parents=True)
        partial = folder / f".latest-{name}"
        partial.symlink_to(name)
        partial.rename(folder / "latest")
    except OSError as error:
        raise LoadError(f"No results can be written to {folder}: {error.strerror}.") from error
    return folder / name


@contextlib.contextmanager
def _told_to_prometheus(target: Shop, settings: LoadSettings) -> Iterator[None]:
    """Let Prometheus in local mode scrape the load test, as long as it runs."""
    if target.targets is None or not target.targets.parent.is_dir():
        yield
        return
    group = {
        "targets": [f"127.0.0.1:{port}" for port in _metrics_ports(settings)],
        "labels": {"job": "loadtest", "service_name": "loadtest"},
    }
    partial = target.targets.with_suffix(".partial")  # Prometheus looks at *.json only
    partial.write_text(json.dumps([group]) + "\n", encoding="utf-8")
    partial.rename(target.targets)
    try:
        yield
    finally:
        target.targets.unlink(missing_ok=True)
