"""The machine and the versions that a measurement was made with."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench import wrk
from bench.errors import BenchError
from local import nginx, postgres
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES = ("flask", "gunicorn", "opentelemetry-sdk", "prometheus-client", "psycopg2-binary", "structlog", "pyreqwest")


QUIET = 0.1
"""How much of the machine other programs may have while something is measured."""


def refuse_noise(others_busy: float) -> None:
    """Say that nothing can be measured, if other programs have too much of the machine.

    Args:
        others_busy: Their share of it.

    Raises:
        BenchError: It is more than `QUIET`.
    """
    if others_busy > QUIET:
        raise BenchError(
            f"The machine is not quiet: other programs had {others_busy:.0%} of it, {QUIET:.0%} may be. Stop them and"
            " measure again; --noisy runs the command anyway."
        )


def describe() -> dict[str, Any]:
    """Say what there is, and how busy it is before the measurement begins."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "cores": os.cpu_count(),
        "cpu": model[1] if model else platform.machine(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": ".".join(map(str, nginx.version(nginx.find()))),
        "postgresql": _first([str(postgres.binaries() / "postgres"), "--version"]).split()[-1],
        "wrk": _wrk().split()[1].rpartition("/")[2],
        **{name: _version(name) for name in _PACKAGES},
        "commit": commit(PROJECT),
        "busy_before": psutil.cpu_percent(interval=1.0) / 100,
    }


def commit(project: Path) -> str:
    """Name the commit of a project's folder, with `+` where files differ from it."""
    name = _first(["git", "-C", str(project), "rev-parse", "--short", "HEAD"])
    changed = _first(["git", "-C", str(project), "status", "--porcelain", "--untracked-files=no"])
    return name + "+" * bool(changed) if name else "unknown"


def command_line() -> str:
    """Give the command as a person would type it, without this machine's folders."""
    arguments = [re.sub(r"(^|@)/[^,@]*/", r"\1../", argument) for argument in sys.argv[1:]]
    return shlex.join(["python", "-m", "bench", *arguments])


def _wrk() -> str:
    program, environment = wrk.find()
    return _first([program, "-v"], environment)


def _first(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).partition("\n")[0]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
