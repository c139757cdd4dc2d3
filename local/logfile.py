"""The supervisor's log files: a full disk costs log lines, which are counted, and nothing else.

`supervisor`'s own handler raises when it cannot write, and the supervisor ends, and all parts with it. It offers no
hook there, so `local.supervise` puts `LogFile` in the place of its `RotatingFileHandler`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from supervisor import loggers

COUNT_FILE = "log-lines-lost"
"""The file in the run folder that has the number of lines lost; the embedded backend makes a metric of it."""

GAP = b"Here log lines are missing: they could not be written.\n"
"""Stands in a log where lines were lost, once it can be written again."""

_NEWLINE = ord("\n")
_MAX_OWED = 65_536
MAX_LINE = 262_144  # no longer line is waited for


class Lost:
    """Counts the lines that were lost, for all logs together, since the supervisor runs.

    The number is also kept in a file, which has its size from the start: to overwrite it needs no room.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._saved = -1

    def add(self, lines: int) -> None:
        """Count some."""
        self.lines += lines
        self.save()

    def save(self) -> None:
        """Write the number into the file, unless it is there; what fails is done the next time."""
        if self.lines == self._saved:
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(COUNT_FILE, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                if os.pwrite(descriptor, b"%020d\n" % self.lines, 0):
                    self._saved = self.lines
            finally:
                os.close(descriptor)


LOST = Lost()


class LogFile(loggers.Handler):  # type: ignore[misc]  # supervisor has no types
    """A log that is rotated at a size. What cannot be written is lost in whole lines, and counted.

    It needs no help to recover: each write tries anew, and a file or folder that was deleted is made again.

    Args:
        filename: Where the log is.
        _mode: As supervisor's own has it.
        max_bytes: The size from which on it is rotated.
        backups: How many old ones are kept.
    """

    def __init__(self, filename: str, _mode: str, max_bytes: int, backups: int) -> None:
        super().__init__()
        self._path = Path(filename)
        self._max_bytes = max_bytes
        self._backups = backups
        self._descriptor = -1
        self._identity = (0, 0)
        self._mid_line = False
        self._skipping = False  # the line that goes on was lost
        with contextlib.suppress(OSError):
            self._open()
        self._owed = b"\n" if self._mid_line else b""  # what has to come before anything else

    def emit(self, record: Any) -> None:
        """Write a record, or what a part has printed."""
        said = record.msg if isinstance(record.msg, bytes) else (self.fmt % record.asdict()).encode()
        if lost := self._write(said):
            LOST.add(lost)
        with contextlib.suppress(OSError):
            self._rotate()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def reopen(self) -> None:
        """Begin with whatever file is there at the next write."""
        self.close()

    def remove(self) -> None:
        """Delete the file."""
        self.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self, data: bytes) -> int:
        """Write what can be written; give the number of lines that are lost."""
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return 0
            self._skipping = False
        if self._owed and not self._owed.endswith(b"\n"):
            data = self._owe(data)
        self._owed = self._owed[self._put(self._owed) :]
        rest = data if self._owed else data[self._put(data) :]
        if rest and self._mid_line and not self._owed:
            rest = self._owe(rest)
        if not rest:
            if len(self._owed) <= _MAX_OWED or self._owed.endswith(b"\n"):
                return 0
            self._owed, self._skipping = b"\n" + GAP, True  # a line that does not end
            return 1
        if not self._owed.endswith(GAP):
            self._owed += GAP
        self._skipping = not rest.endswith(b"\n")
        return rest.count(b"\n") + self._skipping

    def _owe(self, data: bytes) -> bytes:
        """Keep the end of the line whose begin stands in the file, so that it is not lost; give what comes after it."""
        end, newline, rest = data.partition(b"\n")
        self._owed += end + newline
        return rest

    def _put(self, data: bytes) -> int:
        """Write as much as there is room for; say how much that was."""
        written = 0
        with contextlib.suppress(OSError):
            self._find()
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        if written:
            self._mid_line = data[written - 1] != _NEWLINE
        return written

    def _find(self) -> None:
        """Have the file open that is at the path, which somebody may have moved or deleted."""
        if self._descriptor >= 0:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self.close()
            else:
                if (status.st_dev, status.st_ino) != self._identity:
                    self.close()
        if self._descriptor < 0:
            self._open()

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        status = os.fstat(self._descriptor)
        self._identity = status.st_dev, status.st_ino
        self._mid_line = status.st_size > 0 and os.pread(self._descriptor, 1, status.st_size - 1) != b"\n"

    def _rotate(self) -> None:
        if self._descriptor < 0:
            return
        # A part's output comes in gulps: half a line must not end one file and the other half begin the next.
        most = self._max_bytes + (MAX_LINE if self._mid_line else 0)
        if os.fstat(self._descriptor).st_size < most:
            return
        names = [self._path, *(Path(f"{self._path}.{number + 1}") for number in range(self._backups))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self.close()
