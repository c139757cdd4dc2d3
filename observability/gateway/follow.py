"""Following a log file: rotation, truncation, half lines, restarts."""

import os
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

import orjson

from servicekit.telemetry import logs

_CHUNK = 256 * 1024  # some hundred lines
_MAX_LINE = 64 * 1024  # what is longer is no line of ours


class Follower:
    """Reads a file as it grows.

    How far it came is noted in a state file, at most a chunk late: after a crash some lines are read again rather than
    lost. A trace without its root is a hole; a span that comes twice has the same id, and counters begin at 0 anyway.

    Args:
        path: The log. It need not exist yet. Whoever rotates it may rename it or truncate it.
        state: Where to note how far it was read. Without it, reading begins at the start.
        take: Is given lines, without their ends.

    Attributes:
        healthy: Whether reading worked the last time. A file that is not there yet is no failure.
    """

    def __init__(self, path: Path, state: Path, take: Callable[[Sequence[bytes]], None]) -> None:
        self._path = path
        self._state = state
        self._take = take
        self._file: FileIO | None = None
        self._rest = b""
        self._skipping = False
        self._noted: tuple[int, int] | None = None
        self._abandoned = False
        self._unsaved = False
        self.healthy = True

    def read(self, stopping: Callable[[], bool]) -> None:
        """Read all that is there."""
        try:
            while self._step() and not stopping():
                self._note()
            self._note()
        except OSError as error:
            if self.healthy:
                logs.get_logger().error("log.unreadable", exc_info=error)
            self.healthy = False
        except Exception:
            self.healthy = False
            raise
        else:
            self.healthy = True

    def abandon(self) -> None:
        """Note nothing from now on: lines that somebody still takes are read again after a restart."""
        self._abandoned = True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _step(self) -> bool:
        """Read a chunk, or see to a rotation; False when there is nothing to do."""
        file = self._file or self._open()
        if file is None:
            return False
        if chunk := file.read(_CHUNK):
            self._split(chunk)
            return True
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False  # between a rename and the new file
        here = os.fstat(file.fileno())
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            while chunk := file.read(_CHUNK):  # what was written just before it was renamed
                self._split(chunk)
            self._begin_anew()
            self.close()
            return True
        if here.st_size < file.tell():
            self._begin_anew()
            file.seek(0)
            return True
        return False

    def _open(self) -> FileIO | None:
        try:
            self._file = FileIO(self._path)
        except FileNotFoundError:
            return None
        if self._noted is None:
            inode, offset = self._noted = self._remembered()
            here = os.fstat(self._file.fileno())
            if here.st_ino == inode and here.st_size >= offset:
                self._file.seek(offset)
        return self._file

    def _begin_anew(self) -> None:
        self._rest = b""
        self._skipping = False

    def _split(self, chunk: bytes) -> None:
        *lines, rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        elif self._skipping:
            rest = b""
        if len(rest) > _MAX_LINE:
            lines.append(rest[:_MAX_LINE])  # to be counted as what it is, once
            self._skipping, rest = True, b""
        self._rest = rest
        if lines:
            self._take(lines)

    def _remembered(self) -> tuple[int, int]:
        try:
            noted = orjson.loads(self._state.read_bytes())
            return int(noted["inode"]), int(noted["offset"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0  # the first start, or something else than our file

    def _note(self) -> None:
        if self._file is None or self._abandoned:
            return
        position = os.fstat(self._file.fileno()).st_ino, self._file.tell() - len(self._rest)
        if position == self._noted:
            return
        self._noted = position
        fresh = self._state.with_name(self._state.name + ".new")
        try:
            fresh.write_bytes(orjson.dumps({"inode": position[0], "offset": position[1]}))
            fresh.replace(self._state)
        except OSError as error:  # a full disk: reading goes on
            if not self._unsaved:  # else it would be said ten times a second
                logs.get_logger().warning("position.unsaved", exc_info=error)
            self._unsaved = True
        else:
            self._unsaved = False
