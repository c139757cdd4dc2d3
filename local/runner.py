"""What the commands do: up, down, reset, status, logs."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import psutil

from local import ports, rundir
from local.errors import LocalError
from local.parts import Part, Stack, Step
from local.settings import Settings
from local.supervision import ALIVE, PID_FILE, Supervisor, state_name, write_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

    Build = Callable[[Settings], Stack]


EXIT_DEGRADED = 1
EXIT_NOT_RUNNING = 3

_ATTEMPTS = 3
"""How often a part may end before it is ready until the start counts as failed."""
_PATIENCE_SECONDS = 25
"""How long the processes of a killed supervisor may take to end: longer than any part's graceful stop."""
_TAIL_LINES = 20


class StepError(LocalError):
    """A part or a task failed, and its log says more.

    Args:
        message: One clear sentence.
        log: The log, if it has one.
        since: Where in it this start begins, in bytes.
    """

    def __init__(self, message: str, log: Path | None = None, since: int = 0) -> None:
        super().__init__(message)
        self.log = log
        self.since = since


class Interrupted(BaseException):
    """A signal asked the runner to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def up(environ: Mapping[str, str], build: Build) -> int:
    """Start the stack; return when it serves, or when nothing of it is left.

    Args:
        environ: The environment with the settings.
        build: Makes the stack of the settings.

    Returns:
        The exit status: 0 when everything is ready.

    Raises:
        LocalError: It cannot be started, or has failed and was stopped again.
    """
    settings = Settings.read(environ)
    run_dir = settings.run_dir
    rundir.prepare(run_dir)
    with rundir.lock(run_dir), _signals():
        if supervisor := Supervisor.find(run_dir):
            settings = Settings.of_running(run_dir, environ)
            stack = build(settings)
            if all(state_name(info) != "STOPPED" for info in supervisor.states().values()):
                return _look(supervisor, stack, settings)
            print("An earlier start was cut short: stopping what it left.", flush=True)
            supervisor.stop_all(stack, _ignore)
        stack = build(settings)
        killed = (run_dir / PID_FILE).exists()
        ports.check(stack.parts, _PATIENCE_SECONDS if killed else 0)
        settings.store()
        _start(settings, stack)
    return 0


def down(run_dir: Path, environ: Mapping[str, str], build: Build) -> int:
    """Stop the stack and wait until it is gone; 0 also when nothing runs."""
    if not rundir.is_ours(run_dir):
        print("Nothing is running.")
        return 0
    with rundir.lock(run_dir):
        _stop(run_dir, environ, build)
    return 0


def reset(run_dir: Path, environ: Mapping[str, str], build: Build) -> int:
    """Stop the stack and delete its folder with all data.

    Raises:
        LocalError: The folder was not made by `up`.
    """
    if rundir.is_ours(run_dir):
        with rundir.lock(run_dir):
            _stop(run_dir, environ, build)
            rundir.delete(run_dir)
        print(f"Deleted {run_dir}.")
    elif not rundir.delete(run_dir):
        print(f"There is no {run_dir}.")
    return 0


def status(run_dir: Path, environ: Mapping[str, str], build: Build) -> int:
    """Print a table of the parts.

    Returns:
        0 when all are ready, `EXIT_DEGRADED` when some are not, `EXIT_NOT_RUNNING` when nothing runs.
    """
    supervisor = Supervisor.find(run_dir)
    if not supervisor:
        print("Nothing is running. `make up` starts it.")
        return EXIT_NOT_RUNNING
    stack = build(Settings.of_running(run_dir, without_ports(environ)))
    states, ended = supervisor.states(), supervisor.ended()
    with ThreadPoolExecutor(len(stack.parts)) as pool:
        reasons = list(pool.map(lambda part: part.ready(), stack.parts))
    row = "{:<16} {:>7} {:>6} {:>9} {:>9} {:>9}  {}"
    print(row.format("PART", "PID", "PORT", "MEMORY", "UPTIME", "RESTARTS", "STATE"))
    total = _memory(supervisor.pid(), recursive=False)
    for part, reason in zip(stack.parts, reasons, strict=True):
        info = states[part.name]
        name = state_name(info)
        alive = name in ALIVE
        memory = _memory(info["pid"]) if alive else 0
        total += memory
        state = "ready" if alive and not reason else f"{name.lower()}, {reason or 'not ready'}"
        uptime = _duration(info["now"] - info["start"]) if alive else "-"
        print(
            row.format(
                part.name,
                info["pid"] or "-",
                part.port,
                _megabytes(memory),
                uptime,
                ended.get(part.name, 0),
                state,
            )
        )
    print(f"{'with supervisor':<31} {_megabytes(total):>9}")
    healthy = not any(reasons) and all(state_name(info) in ALIVE for info in states.values())
    return 0 if healthy else EXIT_DEGRADED


def logs(run_dir: Path, service: str | None, *, lines: int, follow: bool) -> int:
    """Print the last lines of the logs, and then what is added to them.

    Args:
        run_dir: The stack's folder.
        service: A part's name; None for all parts.
        lines: How many last lines of each.
        follow: Go on until Ctrl-C.

    Raises:
        LocalError: There is no such log.
    """
    found = {path.stem: path for path in sorted((run_dir / "logs").glob("*.log"))}
    if not found:
        raise LocalError("There are no logs yet: `make up` starts the stack.")
    if service and service not in found:
        raise LocalError(f"There is no log of {service!r}: choose one of {', '.join(found)}.")
    chosen = {service: found[service]} if service else found
    width = max(map(len, chosen))
    tails = []
    for name, path in chosen.items():
        prefix = "" if service else f"{name:<{width}} | "
        tail = Tail(path, prefix)
        tail.last(lines)
        tails.append(tail)
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(0.2)
            for tail in tails:
                tail.more()
    return 0


class Tail:
    """One log on its way to the screen; goes on in the new file when the log is rotated."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._file = self._open()

    def last(self, lines: int) -> None:
        """Print the last lines."""
        self._print(deque(self._file, maxlen=lines))

    def more(self) -> None:
        """Print what was added since."""
        self._print(self._file)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
                self._file.close()
                self._file = self._open()
                self._print(self._file)

    def _open(self) -> TextIO:
        return self._path.open(encoding="utf-8", errors="replace")

    def _print(self, lines: Iterator[str] | deque[str] | TextIO) -> None:
        for line in lines:
            sys.stdout.write(self._prefix + line)
        sys.stdout.flush()


def _start(settings: Settings, stack: Stack) -> None:
    """Start everything; on any failure and on Ctrl-C stop it all again."""
    run_dir = settings.run_dir
    cancelled = threading.Event()
    began = time.monotonic()
    try:
        supervisor = Supervisor.launch(run_dir, stack)
        _run_steps(stack, lambda step: _do(step, supervisor, settings, cancelled))
    except BaseException as error:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the stop is bounded in time: let it finish
        cancelled.set()
        print("Stopping what was started.", flush=True)
        running = Supervisor.find(run_dir)
        if running:
            running.stop_all(stack, _ignore)
        for child in psutil.Process().children():  # of tasks
            child.terminate()
        if isinstance(error, StepError) and error.log:
            _explain(error.log, error.since)
        raise
    print(f"Everything is ready after {time.monotonic() - began:.1f} s.\n{stack.welcome}", flush=True)


def _run_steps(stack: Stack, do: Callable[[Step], str]) -> None:
    """Do each step in a thread of its own as soon as what it needs is done, and say so."""
    results: queue.SimpleQueue[tuple[Step, str, BaseException | None, float]] = queue.SimpleQueue()

    def work(step: Step) -> None:
        began = time.monotonic()
        try:
            said, failure = do(step), None
        except BaseException as error:  # noqa: BLE001 - raised again where the steps are awaited
            said, failure = "", error
        results.put((step, said, failure, time.monotonic() - began))

    done: set[str] = set()
    waiting = list(stack.steps)
    while len(done) < len(stack.steps):
        for step in [step for step in waiting if done.issuperset(step.needs)]:
            waiting.remove(step)
            threading.Thread(target=work, args=(step,), daemon=True).start()
        step, said, failure, seconds = results.get()
        if failure:
            raise failure
        print(f"  {step.name:<16} {said:<28} {seconds:5.1f} s", flush=True)
        done.add(step.name)


def _do(step: Step, supervisor: Supervisor, settings: Settings, cancelled: threading.Event) -> str:
    if not isinstance(step, Part):
        return step.run()
    write_script(settings.run_dir, step)
    log = _log(settings, step)
    since = log.stat().st_size if log.exists() else 0
    if not cancelled.is_set():
        supervisor.start(step.name)
    try:
        _await_ready(step, supervisor, settings, cancelled)
    except StepError as error:
        error.since = since
        raise
    return f"ready on port {step.port}"


def _await_ready(part: Part, supervisor: Supervisor, settings: Settings, cancelled: threading.Event) -> None:
    log = _log(settings, part)
    ended_before = supervisor.ended().get(part.name, 0)
    began = looked = time.monotonic()
    while reason := part.ready():
        if cancelled.wait(0.05):
            raise StepError(f"{part.name} was not waited for.")
        now = time.monotonic()
        if now - began > settings.start_timeout_seconds:
            raise StepError(f"{part.name} is not ready after {now - began:.0f} s: it {reason}.", log)
        if now - looked > 0.25:  # noqa: PLR2004 - often enough, and the supervisor has better things to do
            looked = now
            if supervisor.ended().get(part.name, 0) - ended_before >= _ATTEMPTS:
                raise StepError(f"{part.name} ended {_ATTEMPTS} times before it was ready.", log)


def _log(settings: Settings, part: Part) -> Path:
    return settings.run_dir / "logs" / f"{part.name}.log"


def _look(supervisor: Supervisor, stack: Stack, settings: Settings) -> int:
    """Say whether the stack that is already up is well."""
    print("The stack is already up.", flush=True)
    cancelled = threading.Event()
    for part in stack.parts:
        try:
            _await_ready(part, supervisor, settings, cancelled)
        except StepError as error:
            print(f"{error} `make status` and `make logs SERVICE={part.name}` tell more.", file=sys.stderr)
            return EXIT_DEGRADED
    print(stack.welcome)
    return 0


def _stop(run_dir: Path, environ: Mapping[str, str], build: Build) -> None:
    supervisor = Supervisor.find(run_dir)
    if not supervisor:
        print("Nothing is running.")
        return
    stack = build(Settings.of_running(run_dir, without_ports(environ)))
    began = time.monotonic()
    supervisor.stop_all(
        stack, lambda name: print(f"  {name:<16} stopped  {time.monotonic() - began:5.1f} s", flush=True)
    )
    print("Everything is stopped.")


def _explain(log: Path, since: int) -> None:
    print(f"\nThe last lines of {log}:", file=sys.stderr)
    with contextlib.suppress(FileNotFoundError), log.open(encoding="utf-8", errors="replace") as file:
        if since <= log.stat().st_size:  # else it was rotated
            file.seek(since)
        for line in deque(file, maxlen=_TAIL_LINES):
            print(f"  {line.rstrip()}", file=sys.stderr)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn the signals that ask for an end into an exception, so that what was started is stopped."""

    def raise_it(number: int, _frame: object) -> NoReturn:
        raise Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, raise_it) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _memory(pid: int, *, recursive: bool = True) -> int:
    """Count a process tree's memory in bytes, what processes share divided among them."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *(process.children(recursive=True) if recursive else ())]:
            with contextlib.suppress(psutil.NoSuchProcess):
                try:
                    total += one.memory_full_info().pss
                except psutil.AccessDenied:
                    total += one.memory_info().rss
    return total


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size else "-"


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def without_ports(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would contradict the running stack: looking at it and stopping it changes nothing."""
    return {name: value for name, value in environ.items() if not name.endswith("_PORT")}


def _ignore(_name: str) -> None:
    pass
