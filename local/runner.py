"""What changes a stack: up, down, reset."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from local import ports, rundir
from local.errors import LocalError, StepError
from local.parts import Part, Task
from local.settings import Settings
from local.status import status
from local.supervision import PID_FILE, Supervisor, await_lost, leave_out, left_out, write_script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from local.parts import Build, Stack

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ATTEMPTS = 3
"""How often a part may end before it is ready until the start counts as failed."""
_PAUSE_SECONDS = 0.05
_TAIL_LINES = 20


def up(environ: Mapping[str, str], build: Build) -> int:
    """Start the stack; return when it serves, or when nothing of it is left.

    Args:
        environ: The environment with the settings.
        build: Makes the stack of the settings.

    Returns:
        The exit status: 0 when everything is ready, else as `status`, for a stack that was up already.

    Raises:
        LocalError: It cannot be started, or has failed and was stopped again.
    """
    for number in _SIGNALS:
        signal.signal(number, _end)
    settings = Settings.read(environ)
    run_dir = settings.run_dir
    rundir.prepare(run_dir)
    with rundir.lock(run_dir):
        if supervisor := Supervisor.find(run_dir):
            idle = {name for name, info in supervisor.states().items() if info["statename"] == "STOPPED"}
            if idle <= left_out(run_dir).keys():
                _refuse_changes(environ, settings)
                print("The stack is already up.", flush=True)
                if frozen := supervisor.resume():
                    print(f"{' and '.join(frozen)} stood still and goes on now.", flush=True)
                return status(run_dir, build)
            print("An earlier start was cut short: stopping what it left.", flush=True)
            supervisor.stop()
        await_lost(run_dir)
        stack = build(settings)
        killed = (run_dir / PID_FILE).exists()  # its processes are about to end
        ports.check(stack.parts, max(part.stop_seconds for part in stack.parts) if killed else 0)
        stack.check()
        settings.store()
        _start(settings, stack)
    return 0


def _refuse_changes(environ: Mapping[str, str], settings: Settings) -> None:
    wanted = settings.environment()
    for name, value in Settings.of_running(settings.run_dir).environment().items():
        if (name.endswith("_PORT") or name == "TELEMETRY") and environ.get(name) and wanted[name] != value:
            raise LocalError(f"The stack is up with {name}={value}: run `make down` before you change it.")


def down(run_dir: Path) -> int:
    """Stop the stack and wait until it is gone; 0 also when nothing runs.

    Nothing is read of settings or of the stack's description: these may have changed since it was started.
    """
    with rundir.lock(run_dir) if rundir.is_ours(run_dir) else contextlib.nullcontext():
        _stop(run_dir)
    return 0


def reset(run_dir: Path) -> int:
    """Stop the stack and delete its folder with all data.

    Raises:
        LocalError: The folder was not made by `up`.
    """
    if rundir.is_ours(run_dir):
        with rundir.lock(run_dir):
            _stop(run_dir)
            rundir.delete(run_dir)
        print(f"Deleted {run_dir}.")
    elif not rundir.delete(run_dir):
        print(f"There is no {run_dir}.")
    return 0


def _stop(run_dir: Path) -> None:
    supervisor = Supervisor.find(run_dir)
    if not supervisor:
        await_lost(run_dir)
        print("Nothing is running.")
        return
    print("Stopping everything ...", flush=True)
    began = time.monotonic()
    supervisor.stop()
    print(f"Everything is stopped after {time.monotonic() - began:.1f} s.")


def _start(settings: Settings, stack: Stack) -> None:
    """Start everything; on any failure and on Ctrl-C stop it all again."""
    sizes = {log: log.stat().st_size for log in (settings.run_dir / "logs").iterdir()}
    began = time.monotonic()
    try:
        _bring_up(Supervisor.launch(settings.run_dir, stack), settings, stack)
    except BaseException as error:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the stop is bounded in time: let it finish
        print("Stopping what was started.", flush=True)
        if supervisor := Supervisor.find(settings.run_dir):
            supervisor.stop()
        if isinstance(error, StepError):
            _explain(error.log, sizes.get(error.log, 0))
        raise
    print(f"Everything is ready after {time.monotonic() - began:.1f} s.\n{stack.welcome}", flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _bring_up(supervisor: Supervisor, settings: Settings, stack: Stack) -> None:
    """Begin each step as soon as what it needs is done, and say when it is done itself.

    A task holds up the others only here: parts that were begun before it go on starting meanwhile.
    """
    began: dict[str, float] = {}
    done: set[str] = set()
    while len(done) < len(stack.steps):
        ended = supervisor.ended()
        for step in stack.steps:
            if step.name in done or not done.issuperset(step.needs):
                continue
            if isinstance(step, Part) and step.name not in began:
                began[step.name] = time.monotonic()
                try:
                    write_script(settings.run_dir, step)
                except LocalError as error:
                    if not step.optional:
                        raise
                    leave_out(settings.run_dir, step.name, str(error))
                    print(f"  {step.name:<18} left out: {error}", flush=True)
                    done.add(step.name)
                    continue
                supervisor.start(step.name)
            since = began.setdefault(step.name, time.monotonic())
            if isinstance(step, Task):
                said = step.run()
            elif _is_ready(step, settings, since, ended.get(step.name, 0)):
                said = f"ready on port {', '.join(map(str, step.ports.values()))}"
            else:
                continue
            print(f"  {step.name:<18} {said:<32} {time.monotonic() - since:5.1f} s", flush=True)
            done.add(step.name)
        time.sleep(_PAUSE_SECONDS)


def _is_ready(part: Part, settings: Settings, since: float, ended: int) -> bool:
    """Tell whether a part can serve.

    Raises:
        StepError: It cannot, and it is not worth waiting any longer.
    """
    reason = part.ready()
    if not reason:
        return True
    waited = time.monotonic() - since
    log = settings.run_dir / "logs" / f"{part.name}.log"
    if ended >= _ATTEMPTS:
        raise StepError(f"{part.name} ended {_ATTEMPTS} times before it was ready.", log)
    if waited > settings.start_timeout_seconds:
        raise StepError(f"{part.name} is not ready after {waited:.0f} s: it {reason}.", log)
    return False


def _explain(log: Path, since: int) -> None:
    """Print the last lines that this start wrote to a log."""
    print(f"\nThe last lines of {log}:", file=sys.stderr)
    if log.exists():
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(since)
            for line in deque(file, maxlen=_TAIL_LINES):
                print(f"  {line.rstrip()}", file=sys.stderr)
