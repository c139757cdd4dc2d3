"""Follows files of JSON lines, such as a service's log, and puts each line into the log store exactly once.

How far a file has been read is stored in the transaction that stores its lines. So neither a crash nor a full writer
loses or doubles a line: the file itself is the buffer.
"""

from __future__ import annotations

import contextlib
import glob
import re
import sqlite3
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from observability.embedded.database import Full
from observability.embedded.logs import (
    INDEXED,
    MAX_LINE,
    LogEntry,
    LogStore,
    insert,
    is_plausible,
    json_object,
    prepare,
)
from observability.receiving.lines import LineFile, Place, identity
from servicekit.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMESPACE = "shop"

_POLL_SECONDS = 0.1
_SEARCH_SECONDS = 0.5  # between two looks for new files
_LEFT_SECONDS = 1.0  # a file that was renamed is read for so long after its last line: its writer may still have it
_STORED_SECONDS = 3.0  # after that a write that is not in the database was lost: a full disk
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROTATED = re.compile(r"\.(\d+)$")
_SERVICE_NAME, _SERVICE_NAMESPACE, _ENVIRONMENT = INDEXED.values()
_METADATA = ("trace_id", "span_id", "level")


@dataclass
class Figures:
    """What was read, for metrics."""

    files: int = 0
    lines: int = 0
    cut: int = 0
    not_json: int = 0


class _File(LineFile):
    """A file that is followed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MAX_LINE)
        self.path = path
        self.service = _ROTATED.sub("", path.name).removesuffix(".log")
        self.last = time.monotonic()  # when something was queued last
        self.queued = 0  # writes, by the follower's thread,
        self.written = 0  # and those that the writer's thread has come to
        self.unchecked = False


class Tail:
    """Follows the files that match some patterns, in a thread of its own.

    Args:
        store: Where the lines go.
        patterns: Paths with wildcards. Files may come later; rotated ones (`name.1`) are found beside them.
        environment: The label `deployment_environment_name` of the lines.
        lost_file: Where the writer of the files keeps the number of lines that it could not write.
    """

    def __init__(
        self, store: LogStore, patterns: Sequence[str], *, environment: str, lost_file: Path | None = None
    ) -> None:
        self.figures = Figures()
        self._store = store
        self._database = store.database
        self._patterns = patterns
        self._environment = environment
        self._lost_file = lost_file
        self._lost = 0
        self._current: dict[Path, _File] = {}
        self._left: list[_File] = []
        self._next_search = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)

    def start(self) -> None:
        """Begin to follow; after the database's start."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; before the database's stop. What is not stored yet is read at the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def lost(self) -> int:
        """How many lines never came into the files; as it was last known, where that cannot be read now."""
        if self._lost_file is not None:
            with contextlib.suppress(OSError, ValueError):
                self._lost = int(self._lost_file.read_bytes())
        return self._lost

    # -- the thread

    def _run(self) -> None:
        first = True
        while not self._stopping.is_set():
            try:
                if first:
                    self._resume()
                    first = False
                if not self._turn():
                    self._stopping.wait(_POLL_SECONDS)
            except (OSError, sqlite3.Error) as error:
                logs.get_logger().error("tail.failed", exc_info=error)
                self._stopping.wait(1)
        for file in [*self._current.values(), *self._left]:
            file.close()

    def _resume(self) -> None:
        """Begin with what was rotated away meanwhile, the oldest first."""
        for path in self._matching():
            rotated = [(int(found[1]), old) for old in _siblings(path) if (found := _ROTATED.search(old.name))]
            for _, old in sorted(rotated, reverse=True):
                if (file := self._open(old)) is not None:
                    self._left.append(file)
        self._search()
        known = {file.identity for file in (*self._current.values(), *self._left)}

        def forget(connection: sqlite3.Connection) -> None:
            for device, inode in connection.execute("SELECT device, inode FROM tails").fetchall():
                if (device, inode) not in known:
                    connection.execute("DELETE FROM tails WHERE device = ? AND inode = ?", (device, inode))

        with contextlib.suppress(Full):
            self._database.write(forget)

    def _turn(self) -> bool:
        """Look at each file once; tell whether there is more to read at once."""
        if time.monotonic() >= self._next_search:
            self._search()
        more = False
        for file in list(self._left):
            waiting = self._read(file)
            more |= waiting
            if not waiting and not file.unchecked and time.monotonic() - file.last > _LEFT_SECONDS:
                self._read(file, final=True)
                if not file.unchecked:
                    file.close()
                    self._left.remove(file)
        for path, file in list(self._current.items()):
            if identity(path) != file.identity:
                # It was renamed or deleted. Its rest comes before what its successor has.
                del self._current[path]
                file.last = time.monotonic()
                self._left.append(file)
                more |= self._read(file)
                self._next_search = 0.0
            else:
                more |= self._read(file)
        self.figures.files = len(self._current)
        return more

    def _search(self) -> None:
        self._next_search = time.monotonic() + _SEARCH_SECONDS
        for path in self._matching():
            if path not in self._current and (file := self._open(path)) is not None:
                self._current[path] = file

    def _matching(self) -> list[Path]:
        return sorted({Path(found) for pattern in self._patterns for found in glob.glob(pattern)})  # noqa: PTH207  # any path

    def _open(self, path: Path) -> _File | None:
        """Open a file where the last process, or this one, left it."""
        try:
            if not path.is_file():
                return None
            file = _File(path)
        except OSError as error:
            logs.get_logger().warning("tail.unreadable", path=path.name, reason=error.strerror)
            self._next_search = time.monotonic() + 10 * _SEARCH_SECONDS
            return None
        if any(file.identity == other.identity for other in (*self._current.values(), *self._left)):
            file.close()
            return None
        self._restore(file)
        return file

    def _restore(self, file: _File) -> None:
        """Go to where the database says that the file is read to."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT offset, skipping, head FROM tails WHERE device = ? AND inode = ?", file.identity
            ).fetchone()
        file.resume(Place(row[0], bool(row[1]), row[2]) if row else Place())
        file.unchecked = False

    def _read(self, file: _File, *, final: bool = False) -> bool:
        """Queue the file's next lines; tell whether there are more.

        Args:
            file: The file.
            final: Nothing more will come, so that its end is the end of a line.
        """
        if file.unchecked and file.written == file.queued and time.monotonic() - file.last > _STORED_SECONDS:
            self._restore(file)
        found = file.read(final=final)
        if found is None:
            return False
        entries = list(self._entries(file, found.lines))
        try:
            self._queue(file, found.end, entries)
        except Full:
            return False
        file.place = found.end
        file.last, file.unchecked = time.monotonic(), True
        self.figures.lines += len(entries)
        self.figures.cut += found.cut
        return found.more

    def _queue(self, file: _File, end: Place, entries: list[LogEntry]) -> None:
        prepared = prepare(entries)
        begin, followed = file.place, file.identity

        def write(connection: sqlite3.Connection) -> None:
            file.written += 1
            values = (end.offset, end.skipping, end.head, *followed)
            if begin.offset:
                updated = connection.execute(
                    "UPDATE tails SET offset = ?, skipping = ?, head = ? WHERE device = ? AND inode = ? AND offset = ?",
                    (*values, begin.offset),
                ).rowcount
                if not updated:
                    return  # the write before this one was lost: `_restore` goes back to it
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO tails (offset, skipping, head, device, inode) VALUES (?, ?, ?, ?, ?)",
                    values,
                )
            insert(connection, prepared)

        self._database.write(write, prepared.size)
        file.queued += 1

    def _entries(self, file: _File, lines: list[bytes]) -> Iterator[LogEntry]:
        now = time.time_ns()
        for number, raw in enumerate(lines):
            if not raw.strip():
                continue
            line = raw.decode(errors="replace").removesuffix("\r")
            fields = json_object(line)
            if fields is None:
                self.figures.not_json += 1
                fields = {}
            timestamp = _timestamp(fields.get("timestamp"))
            service = fields.get("service")
            labels = {
                _SERVICE_NAME: service if isinstance(service, str) and service else file.service,
                _SERVICE_NAMESPACE: NAMESPACE,
                _ENVIRONMENT: self._environment,
            }
            metadata = {name: value for name in _METADATA if isinstance(value := fields.get(name), str) and value}
            # Equal lines without a time of their own are two all the same.
            if timestamp is None or not is_plausible(timestamp, now):
                timestamp = now + number
            yield LogEntry(timestamp, labels, metadata, line)


def _siblings(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{glob.escape(path.name)}.*"))


def _timestamp(text: Any) -> int | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    # Not `timestamp()`, whose float has no room for nanoseconds.
    return (at - _EPOCH) // timedelta(microseconds=1) * 1_000
