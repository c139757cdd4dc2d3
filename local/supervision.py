"""The process manager: `supervisor` from PyPI, configured for one stack and spoken to over its XML-RPC.

Three guards against orphans: each part asks the kernel for its stop signal when its parent dies (`setpriv`),
leads a process group that is killed with it, and the supervisor stops all parts when it is told to end.
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
from supervisor.states import ProcessStates, getProcessStateDescription
from supervisor.xmlrpc import SupervisorTransport

from local.errors import LocalError
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local.parts import Part, Stack

SOCKET = "supervisor.sock"
PID_FILE = "supervisor.pid"
ALIVE = frozenset({"STARTING", "RUNNING"})

_START_SECONDS = 30
_CALL_SECONDS = 10
_NO_WAIT = False
_USER = "owner"
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
priority={priority}
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


class Supervisor:
    """The running supervisor of one stack. Each call has a time limit; OSError when it does not answer."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    @classmethod
    def find(cls, run_dir: Path) -> Supervisor | None:
        """Find the supervisor that runs for a folder, None when there is none."""
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
            process = subprocess.Popen(
                [sys.executable, "-m", "local.supervise", str(run_dir)],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if found := cls.find(run_dir):
                return found
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise LocalError(f"The supervisor did not start: look at {log}.")

    def pid(self) -> int:
        """Give the supervisor's process id."""
        return int(self._call("supervisor.getPID"))

    def states(self) -> dict[str, dict[str, Any]]:
        """Give what the supervisor knows about each part, as its `getProcessInfo` documents it."""
        return {info["name"]: info for info in self._call("supervisor.getAllProcessInfo")}

    def ended(self) -> dict[str, int]:
        """Tell how often each part has ended by itself since the supervisor runs."""
        return dict(self._call("local.ended"))

    def start(self, name: str) -> None:
        """Start a part, without waiting for it."""
        self._call("supervisor.startProcess", name, _NO_WAIT)

    def stop_all(self, stack: Stack, say: Callable[[str], None]) -> None:
        """Stop all parts, each after those that need it, and then the supervisor; return when all are gone.

        Args:
            stack: Says what needs what.
            say: Is told the name of each part that was running, when it has stopped.
        """
        process = psutil.Process(self.pid())
        asked: set[str] = set()
        deadline = time.monotonic() + sum(part.stop_seconds for part in stack.parts) + _CALL_SECONDS
        while time.monotonic() < deadline:
            gone = {name for name, info in self.states().items() if _is_gone(info["state"])}
            for name in sorted(asked & gone):
                say(name)
            asked -= gone
            waiting = [part.name for part in stack.parts if part.name not in gone | asked]
            if not waiting and not asked:
                break
            for name in waiting:
                if stack.dependents(name) <= gone:
                    with contextlib.suppress(xmlrpc.client.Fault):  # in mid-change: asked again in a moment
                        self._call("supervisor.stopProcess", name, _NO_WAIT)
                        asked.add(name)
            time.sleep(0.03)
        with contextlib.suppress(OSError):
            self._call("supervisor.shutdown")
        deadline = time.monotonic() + _CALL_SECONDS
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                process.kill()
            with contextlib.suppress(OSError, xmlrpc.client.Fault):
                self._call("supervisor.getState")  # it looks round once a second, or when somebody calls
            time.sleep(0.02)

    def _call(self, method: str, *args: str | bool) -> Any:
        with _short_path(self._run_dir) as path:
            transport = _Transport(path)
            try:
                # The address is needed for its form only.
                return getattr(xmlrpc.client.ServerProxy("http://localhost", transport), method)(*args)
            except http.client.HTTPException as error:
                raise ConnectionResetError(f"broken answer: {error!r}") from error
            finally:
                transport.close()


class _Transport(SupervisorTransport):  # type: ignore[misc] # supervisor has no types
    """The package's transport with what it lacks: a time limit."""

    def __init__(self, path: str) -> None:
        super().__init__(username=_USER, password=_USER, serverurl=f"unix://{path}")
        self._get_connection = lambda: _Connection(path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(self._path)


@contextlib.contextmanager
def _short_path(run_dir: Path) -> Iterator[str]:
    """Give a path to the socket that is short however deep the folder is."""
    folder = os.open(run_dir, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


def state_name(info: dict[str, Any]) -> str:
    """Name the state of a part: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL or UNKNOWN."""
    return str(getProcessStateDescription(info["state"]))


def _is_gone(state: int) -> bool:
    return state in (ProcessStates.STOPPED, ProcessStates.FATAL, ProcessStates.UNKNOWN)


def _configure(run_dir: Path, stack: Stack) -> None:
    text = _CONFIGURATION.format(
        socket=SOCKET,
        pid_file=PID_FILE,
        user=_USER,
        as_root="user=root\n" if os.geteuid() == 0 else "",  # else it warns that it keeps root's rights
    )
    for priority, part in enumerate(stack.parts, start=1):
        text += _PROGRAM.format(
            name=part.name,
            priority=priority,
            retries=_NEVER_GIVE_UP,
            stop_signal=part.stop_signal,
            stop_seconds=part.stop_seconds,
        )
    (run_dir / "conf" / "supervisord.conf").write_text(text, encoding="utf-8")


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
        "# When the supervisor dies, the kernel sends this signal.",
        shlex.join(["exec", "setpriv", f"--pdeathsig={part.stop_signal}", *part.command()]),
    ]
    (run_dir / "conf" / f"{part.name}.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")
