"""Records a run's changes before they are made, so that the next command can undo them if the run is killed.

A record is a file next to the file of flags. The run locks it while it lives. The kernel releases the lock, however the
run ends. A record without steps says only that a run is active: see `finding.alone`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from local.errors import LocalError
from local.rundir import UNDO_PREFIX
from local.supervision import Supervisor
from scenarios import flags
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scenarios.place import Place


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SwitchOff(_Step):
    """Switch a flag off."""

    switch_off: str


class Resume(_Step):
    """Resume a frozen part."""

    resume: str


class Write(_Step):
    """Restore a file; without a text, delete it."""

    write: Path
    text: str | None = None


class StartAnew(_Step):
    """Restart a part by its start script."""

    start_anew: str


class Reload(_Step):
    """Make the gateway reload its configuration. Its old workers finish their requests."""

    reload: Literal["nginx"] = "nginx"


Step = SwitchOff | Resume | Write | StartAnew | Reload


class Record(BaseModel):
    """A description of the changes, and the steps that undo them, in order."""

    what: str
    pid: int
    steps: list[Step]


@contextlib.contextmanager
def afterwards(place: Place, what: str, steps: Sequence[Step]) -> Iterator[None]:
    """Run these steps at the end of the `with` block. If this process is killed before, the next command runs them."""
    record = Record(what=what, pid=os.getpid(), steps=list(steps))
    with _written(place.flags.parent, record) as path:
        try:
            yield
        finally:
            if path.exists():  # otherwise the stack was restarted meanwhile, and the changes are gone
                _take(record, place)
                with flags.locked(place.flags.parent):  # no other command may find it after the lock is released
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(folder: Path, record: Record) -> Iterator[Path]:
    with contextlib.ExitStack() as held:
        with flags.locked(folder):  # no other command may find the record before it is locked
            try:
                descriptor, name = tempfile.mkstemp(dir=folder, prefix=UNDO_PREFIX)
            except OSError as error:
                raise ScenarioError(f"{folder} cannot be written to ({error.strerror}): only its owner can.") from error
            file = held.enter_context(os.fdopen(descriptor, "w", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(record.model_dump_json())
            file.flush()
        yield Path(name)


def alive(place: Place) -> list[Record]:
    """Return the records of active runs, which hold a lock."""
    return [record for file, record in _records(place.flags.parent, dead=False) if record]


def replay(place: Place) -> list[str]:
    """Undo the changes of runs that were killed.

    Returns:
        A description of each change that was undone.

    Raises:
        ScenarioError: Something could not be undone; it is tried again by the next command.
    """
    undone = []
    for file, record in _records(place.flags.parent, dead=True):
        with file:
            if record is not None:
                try:
                    _take(record, place)
                except (LocalError, OSError, psutil.Error) as error:
                    anew = "make down up" if place.stack else "docker compose up -d --force-recreate"
                    raise ScenarioError(
                        f"A run was killed and left {record.what}, which could not be undone ({error}):"
                        f" `{anew}` begins anew."
                    ) from error
                if record.steps:
                    undone.append(record.what)
            with flags.locked(place.flags.parent):
                Path(file.name).unlink(missing_ok=True)
    return undone


def _records(folder: Path, *, dead: bool) -> list[tuple[IO[Any], Record | None]]:
    """Return the records of dead runs, each locked by this process, or those of active runs."""
    found: list[tuple[IO[Any], Record | None]] = []
    if not folder.is_dir():
        return found
    with flags.locked(folder):
        for path in sorted(folder.glob(f"{UNDO_PREFIX}*")):
            file = path.open(encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_dead = True
            except BlockingIOError:
                is_dead = False
            if is_dead == dead:
                found.append((file, _read(file)))
            if not dead or not is_dead:
                file.close()
    return found


def _read(file: IO[str]) -> Record | None:
    """Read a record; None if it is incomplete, since then nothing was changed yet."""
    try:
        return Record.model_validate_json(file.read())
    except ValidationError:
        return None


def _take(record: Record, place: Place) -> None:
    """Run all steps, even if one fails.

    Raises:
        LocalError, OSError, psutil.Error: The first failure.
    """
    with contextlib.ExitStack() as steps:  # runs them from the last to the first
        for step in reversed(record.steps):
            steps.callback(take, step, place)


def take(step: Step, place: Place) -> None:
    """Run a step."""
    match step:
        case SwitchOff():
            flags.switch(place.flags, step.switch_off, flags.OFF)
        case Resume():
            supervisor(place).resume(step.resume)
        case Write(text=None):
            step.write.unlink(missing_ok=True)
        case Write():
            step.write.write_text(step.text or "", encoding="utf-8")
        case StartAnew():
            supervisor(place).restart(step.start_anew)
        case Reload():
            psutil.Process(supervisor(place).states()[step.reload]["pid"]).send_signal(signal.SIGHUP)
            time.sleep(0.5)  # nothing tells when it is done


def supervisor(place: Place) -> Supervisor:
    """Return the supervisor of the local stack.

    Raises:
        ScenarioError: The stack was stopped.
    """
    found = Supervisor.find(place.stack.run_dir) if place.stack else None
    if found is None:
        raise ScenarioError("The local stack has been stopped meanwhile.")
    return found
