"""The folder that holds all state of a stack."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any

from local.errors import LocalError
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MARKER = "made-by-make-up"
FLAGS = PROJECT / "scenarios" / "flags" / "flags.json"
"""The feature flags, all off."""

UNDO_PREFIX = ".undo-"
"""With this begin the names of the files, beside the flags, that say how to undo what a scenario has changed."""

_LEAST_ROOM = 262_144


def prepare(run_dir: Path) -> None:
    """Create the folder and its rooms, for its owner only.

    Raises:
        LocalError: The folder holds something that is not ours, or cannot be made.
    """
    try:
        if run_dir.exists() and not is_ours(run_dir) and (not run_dir.is_dir() or any(run_dir.iterdir())):
            raise LocalError(f"{run_dir} holds something else: choose an empty or new folder with RUN_DIR.")
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (run_dir / MARKER).write_text("`make reset` deletes this folder with everything in it.\n", encoding="utf-8")
        for name in ("conf", "keys", "logs", "secrets"):
            (run_dir / name).mkdir(mode=0o700, exist_ok=True)
        full = next((path for path in (run_dir, run_dir / "logs") if shutil.disk_usage(path).free < _LEAST_ROOM), None)
        if full:  # else something fails later that has no room to say why
            raise LocalError(f"There is no room left in {full}: free some, or choose another folder with RUN_DIR.")
    except OSError as error:
        raise LocalError(f"{run_dir} cannot be used ({error.strerror}): choose another with RUN_DIR.") from error


def flags_file(run_dir: Path) -> Path:
    """Give the place of the services' feature flags: in a folder of its own, since it is replaced by renaming."""
    return run_dir / "flags" / "flags.json"


def switch_faults_off(path: Path) -> None:
    """Write a file of feature flags in which everything is off, whatever stood there.

    Nothing is left to be undone, either: a stack that starts has its scripts and settings written anew.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    for left in path.parent.glob(f"{UNDO_PREFIX}*"):
        left.unlink(missing_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(_all_off(), encoding="utf-8")
    fresh.rename(path)


def _all_off() -> str:
    """Give the project's feature flags, all off: in its own file, which Docker Compose uses, one may be on.

    Raises:
        LocalError: The file is not valid.
    """
    try:
        content = json.loads(FLAGS.read_text(encoding="utf-8"))
        for entry in content["flags"].values():
            entry["state"] = "DISABLED"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LocalError(f"{FLAGS} is not a valid file of feature flags: restore it with `git checkout`.") from error
    return rendered(content)


def rendered(content: dict[str, Any]) -> str:
    """Write JSON with a line for each member of a flag, so that a change is a line."""
    head = [f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in content.items() if name != "flags"]
    flags = [
        f"    {json.dumps(name)}: {{\n"
        + ",\n".join(f"      {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        + "\n    }"
        for name, entry in content["flags"].items()
    ]
    return "{\n" + "".join(head) + '  "flags": {\n' + ",\n".join(flags) + "\n  }\n}\n"


def is_ours(run_dir: Path) -> bool:
    """Tell whether the folder was made by `prepare`."""
    return (run_dir / MARKER).is_file()


def delete(run_dir: Path) -> bool:
    """Delete the folder; False when there was none.

    Raises:
        LocalError: The folder was not made by `prepare`.
    """
    if not run_dir.exists():
        return False
    if not is_ours(run_dir):
        raise LocalError(f"{run_dir} was not made by `make up`, so it is not deleted. Look at RUN_DIR.")
    # The marker goes last: what an interrupted reset leaves can be reset again.
    for entry in run_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    shutil.rmtree(run_dir)
    return True


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold the right to start or stop the stack of this folder.

    Raises:
        LocalError: Somebody else holds it.
    """
    descriptor = os.open(run_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode() or "unknown"
            raise LocalError(
                f"Another `make up`, `down` or `reset` is at work here (pid {holder}): wait until it ends."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def make_secrets(run_dir: Path, names: Iterable[str]) -> None:
    """Write a random password for each name that has none yet, readable by the owner only."""
    for name in names:
        path = run_dir / "secrets" / name
        if path.exists():
            continue
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        partial.rename(path)
