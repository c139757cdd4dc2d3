"""Commands that look at a running stack, at its logs, or at what would be run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from local import nginx, postgres
from local.errors import LocalError
from local.processes import child
from local.settings import PROJECT, Settings
from local.stack import OWNER, gateway_settings, password_file, service_environment
from local.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def logs(run_dir: Path, service: str | None, *, follow: bool) -> int:
    """Print the last lines of the logs, and then what is added to them.

    Args:
        run_dir: The stack's folder.
        service: A part's name; None for all parts.
        follow: Go on until Ctrl-C.

    Raises:
        LocalError: There is no such log.
    """
    folder = run_dir / "logs"
    found = sorted(path.stem for path in folder.glob("*.log"))
    if not found:
        raise LocalError("There are no logs yet: `make up` starts the stack.")
    if service and service not in found:
        raise LocalError(f"There is no log of {service!r}: choose one of {', '.join(found)}.")
    files = [f"{name}.log" for name in ([service] if service else found)]
    # -F goes on in the new file when the supervisor rotates a log.
    command = ["tail", "-n", "20", *(["-F"] if follow else []), *files]
    with contextlib.suppress(KeyboardInterrupt), child(command, cwd=folder) as tail:
        tail.wait()
    return 0


def psql(run_dir: Path) -> NoReturn:
    """Open the order database as its owner; only the environment carries the password."""
    settings = _running(run_dir)
    environment = postgres.client_env(settings.order_db_port, password_file(settings, OWNER))
    _become([str(postgres.binaries() / "psql")], environment)


def rotate_keys(run_dir: Path, *, revoke: bool) -> NoReturn:
    """Make a new signing key in auth-service's folder; to revoke is to withdraw all others at once."""
    action = "revoke" if revoke else "rotate"
    _become([sys.executable, "-m", "auth_service.keys", action], service_environment(_running(run_dir), "auth"))


def health(run_dir: Path) -> NoReturn:
    """Run the tests that look at a running stack, with the ports of this one."""
    _become([sys.executable, "-m", "pytest", "tests/health"], _running(run_dir).environment())


def render_gateway(folder: Path) -> int:
    """Write the gateway's configuration to a folder, and print its main file's path."""
    folder = folder.resolve()
    print(nginx.render(folder, gateway_settings(Settings(run_dir=folder))))
    return 0


def _running(run_dir: Path) -> Settings:
    if not Supervisor.find(run_dir):
        raise LocalError("Nothing is running: `make up` first.")
    return Settings.of_running(run_dir)


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Run a program in this one's place, so that Ctrl-C and the exit status are its own."""
    os.chdir(PROJECT)
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606 - no shell is the point
