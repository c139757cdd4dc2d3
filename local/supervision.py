"""The process manager: `supervisor` from PyPI, configured for one stack and spoken to over its XML-RPC.

Three guards against orphans: each part asks the kernel for its stop signal when its parent dies, leads a process
group that is killed with it, and the supervisor stops all parts when it is told to end.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from typing import TYPE_CHECKING, Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from local.errors import LocalError
from local.parts import Part
from local.processes import PATIENCE_SECONDS, kill, start
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.parts import Stack

PID_FILE = "supervisor.pid"
SOCKET = "supervisor.sock"

_MODULE = "local.supervise"
_START_SECONDS = 30
_CALL_SECONDS = 10
_STOP_SECONDS = 60
_RUNS = frozenset({"RUNNING", "STARTING", "BACKOFF"})
_LOST_SECONDS = 60
_NO_WAIT = False
_USER = "owner"
_ABSENT = ".absent"
_NEVER_GIVE_UP = 1_000_000  # supervise.py keeps the count of attempts in a row at its longest wait

_CONFIGURATION = """\
; Written by `make up`. Paths are relative to the folder above.
[supervisord]
nodaemon=true
silent=true
{as_root}logfile=logs/supervisor.log
logfile_maxbytes=2MB
logfile_backups=1
pidfile={pid_file}
; Through /proc, because the path of a socket may have 107 bytes only and this folder's may be longer.
[unix_http_server]
file=/proc/self/cwd/{socket}
; Only the owner reaches the socket. The name and password keep supervisor from warning in its log.
chmod=0700
username={user}
password={user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[rpcinterface:local]
supervisor.rpcinterface_factory=local.supervise:extension
"""

_PROGRAM = """\
[program:{name}]
command=/bin/sh conf/{name}.sh
autostart=false
autorestart=true
startsecs=1
startretries={retries}
stopsignal={stop_signal}
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""

# All of a group are stopped at once, and a group only when the later ones are gone.
_GROUP = """\
[group:{stage}]
programs={names}
priority={stage}
"""


class Supervisor:
    """The running supervisor of one stack. Each call has a time limit; OSError when it does not answer."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    @classmethod
    def find(cls, run_dir: Path) -> Supervisor | None:
        """Find the supervisor that runs for a folder, None when there is none.

        Raises:
            LocalError: It runs, and cannot be spoken to.
        """
        found = cls(run_dir)
        try:
            found.pid()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except xmlrpc.client.Fault as error:
            raise LocalError("The stack is just being stopped: try again in a moment.") from error
        except OSError as error:
            raise LocalError(
                f"The supervisor of {run_dir} does not answer ({error}): end the process whose pid is in "
                f"{run_dir / PID_FILE} (`kill -KILL` is safe: its parts end with it)."
            ) from error
        return found

    @classmethod
    def launch(cls, run_dir: Path, stack: Stack) -> Supervisor:
        """Start a supervisor in the background, with all parts known to it and none started.

        It has a session of its own, so neither Ctrl-C nor the end of the terminal reaches it.

        Raises:
            LocalError: It did not come up.
        """
        _configure(run_dir, stack)
        log = run_dir / "logs" / "supervisor.log"
        with log.open("ab") as output:
            process = start(
                [sys.executable, "-m", _MODULE, str(run_dir)],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        try:
            while time.monotonic() < deadline and process.poll() is None:
                if found := cls.find(run_dir):
                    return found
                time.sleep(0.02)
            raise LocalError(f"The supervisor did not start: look at {log}.")
        except BaseException:
            kill(process)
            process.wait(PATIENCE_SECONDS)
            raise

    def pid(self) -> int:
        """Give the supervisor's process id."""
        return int(self._call("supervisor.getPID"))

    def states(self) -> dict[str, dict[str, Any]]:
        """Give what the supervisor knows about each part, as its `getProcessInfo` documents it."""
        return {info["name"]: info for info in self._call("supervisor.getAllProcessInfo")}

    def ended(self) -> dict[str, int]:
        """Tell how often each part has ended by itself since the supervisor runs."""
        return dict(self._call("local.ended"))

    def lost_log_lines(self) -> int:
        """Tell how many log lines could not be written since the supervisor runs."""
        return int(self._call("local.lost_log_lines"))

    def start(self, name: str) -> None:
        """Start a part, without waiting for it."""
        self._call("supervisor.startProcess", f"{self.states()[name]['group']}:{name}", _NO_WAIT)

    def restart(self, name: str) -> None:
        """Stop a part, and start it by its script as that is now, without waiting until it can serve."""
        part = f"{self.states()[name]['group']}:{name}"
        deadline = time.monotonic() + _STOP_SECONDS
        if self.states()[name]["statename"] in _RUNS:
            with contextlib.suppress(xmlrpc.client.Fault):  # it has ended meanwhile
                self._call("supervisor.stopProcess", part, _NO_WAIT)
        while self.states()[name]["statename"] in {*_RUNS, "STOPPING"}:
            if time.monotonic() > deadline:
                raise LocalError(f"{name} did not stop within {_STOP_SECONDS} s.")
            time.sleep(0.1)
        self._call("supervisor.startProcess", part, _NO_WAIT)

    def resume(self, *names: str) -> list[str]:
        """Let parts go on that stand still (SIGSTOP), these or all; return which did."""
        found = []
        for name, info in self.states().items():
            if info["pid"] and (not names or name in names):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(info["pid"])
                    those = (*process.children(recursive=True), process)
                    went_on = [_resumed(each) for each in those]
                    found += [name] * any(went_on)
        return found

    def stop(self) -> None:
        """Stop all parts, each after those that need it, and the supervisor; return when all are gone.

        One that stands still would not hear that it is to stop: it goes on first.
        """
        self.resume()
        process = psutil.Process(self.pid())
        patience = sum(part["stopwaitsecs"] for part in self._call("supervisor.getAllConfigInfo"))
        deadline = time.monotonic() + patience + _CALL_SECONDS
        self._call("supervisor.shutdown")
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    process.kill()  # its parts end with it
                time.sleep(0.03)

    def _call(self, method: str, *args: str | bool) -> Any:
        transport = SupervisorTransport(_USER, _USER, f"unix://{SOCKET}")
        # The path of a socket may have 107 bytes only, and this folder's may be longer: so a relative one.
        # The address is needed for its form only.
        with (
            _limited(_CALL_SECONDS),
            contextlib.chdir(self._run_dir),
            xmlrpc.client.ServerProxy("http://localhost", transport) as server,
        ):
            try:
                return getattr(server, method)(*args)
            except http.client.HTTPException as error:
                raise ConnectionResetError(f"broken answer: {error!r}") from error


def await_lost(run_dir: Path) -> None:
    """Wait for a supervisor whose folder was deleted: it sees that within 5 s, and ends with its parts."""
    deadline = time.monotonic() + _LOST_SECONDS
    while time.monotonic() < deadline and any(
        (process.info["cmdline"] or [])[-2:] == [_MODULE, str(run_dir)] for process in psutil.process_iter(["cmdline"])
    ):
        time.sleep(0.1)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Give sockets that are made meanwhile a limit: supervisor's transport has none of its own, and takes none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _configure(run_dir: Path, stack: Stack) -> None:
    text = _CONFIGURATION.format(
        socket=SOCKET,
        pid_file=PID_FILE,
        user=_USER,
        as_root="user=root\n" if os.geteuid() == 0 else "",  # else it warns that it keeps root's rights
    )
    for part in stack.parts:
        text += _PROGRAM.format(
            name=part.name,
            retries=_NEVER_GIVE_UP,
            stop_signal=part.stop_signal,
            stop_seconds=part.stop_seconds,
        )
    stages: dict[str, int] = {}
    for step in stack.steps:
        before = step.needs + (step.outlived_by if isinstance(step, Part) else ())
        stages[step.name] = 1 + max((stages[name] for name in before), default=0)
    for stage in sorted({stages[part.name] for part in stack.parts}):
        text += _GROUP.format(stage=stage, names=",".join(p.name for p in stack.parts if stages[p.name] == stage))
    for name in left_out(run_dir):  # of an earlier start
        (run_dir / "conf" / f"{name}{_ABSENT}").unlink()
    (run_dir / "conf" / "supervisord.conf").write_text(text, encoding="utf-8")


def leave_out(run_dir: Path, name: str, reason: str) -> None:
    """Write down that the stack runs without a part, and why."""
    (run_dir / "conf" / f"{name}{_ABSENT}").write_text(reason + "\n", encoding="utf-8")


def left_out(run_dir: Path) -> dict[str, str]:
    """Give the parts that the stack runs without, each with the reason."""
    files = (run_dir / "conf").glob(f"*{_ABSENT}")
    return {file.name.removesuffix(_ABSENT): file.read_text(encoding="utf-8").strip() for file in files}


def write_script(run_dir: Path, part: Part) -> None:
    """Write the script that starts a part: to be run by the supervisor, and to be read by people.

    Raises:
        LocalError: The part cannot be started; the sentence says what to do.
    """
    lines = [
        "#!/bin/sh",
        f"# Starts {part.name} in the foreground. Written by `make up`.",
        f"cd {shlex.quote(str(PROJECT))} || exit",
        *(f"export {name}={shlex.quote(value)}" for name, value in part.environment.items()),
        shlex.join(["exec", *part.command()]),
    ]
    (run_dir / "conf" / f"{part.name}.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _resumed(process: psutil.Process) -> bool:
    """Let a process go on if it stands still, and say whether it did; one that has ended meanwhile did not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.status() == psutil.STATUS_STOPPED:
            process.resume()
            return True
    return False
