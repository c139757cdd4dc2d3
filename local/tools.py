"""Commands that look at a running stack or at what would be run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from local import nginx, postgres
from local.errors import LocalError
from local.settings import PROJECT, Settings
from local.stack import OWNER, gateway_settings, password_file, service_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def psql(settings: Settings) -> int:
    """Open the order database as its owner; only the environment carries the password."""
    environment = postgres.client_env(settings.order_db_port, password_file(settings, OWNER))
    return _run([str(postgres.binaries() / "psql")], environment)


def rotate_keys(settings: Settings) -> int:
    """Make a new signing key in auth-service's folder."""
    return _run(
        [sys.executable, "-m", "auth_service.keys", "rotate"],
        service_environment(settings, "auth"),
        cwd=PROJECT,
    )


def health(settings: Settings) -> int:
    """Run the tests that look at a running stack, with the ports of this one."""
    return _run([sys.executable, "-m", "pytest", "tests/health"], settings.environment(), cwd=PROJECT)


def render_gateway(folder: Path) -> int:
    """Write the gateway's configuration to a folder, and print its main file's path."""
    folder = folder.resolve()
    print(nginx.render(folder, gateway_settings(Settings(run_dir=folder))))
    return 0


def _run(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> int:
    try:
        return subprocess.run(command, env={**os.environ, **environment}, cwd=cwd, check=False).returncode
    except OSError as error:
        raise LocalError(f"{command[0]} cannot be run: {error.strerror}.") from error


ON_STACK: dict[str, Callable[[Settings], int]] = {"psql": psql, "rotate-keys": rotate_keys, "health": health}
