"""The one SQLite file: one thread writes in groups, others read, and what is too old or too much is deleted.

Whoever sends telemetry never waits for the disk: a write is a function that is put into a bounded queue. When that is
full, `Full` says so, and the sender is told to come back later.
"""

import contextlib
import fcntl
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from servicekit.telemetry import logs

APPLICATION_ID = 0x0B5E7AB1  # marks the file as ours, for us and for file(1)
FORMAT = 2  # of all tables together: raise it when one changes

MEGABYTE = 1024 * 1024
_LINGER_SECONDS = 0.05  # how long a group waits for more: fewer commits, and still searchable at once for a person
_GROUP_SECONDS = 0.2  # how long a group may take on more when there is always more
_TIDY_SECONDS = 0.05  # of deleting between two groups
_VACUUM_PAGES = 256
_READ_SECONDS = 20.0
_IDLE_SECONDS = 1.0
_NEARLY_FULL = 0.9  # shares of the queue
_ENOUGH = 0.1
_CHECKPOINT_PAGES = 4000  # of 4 KiB: each checkpoint waits for the disk, and writes a page once that changed often
_READERS_END_SECONDS = 0.5  # that queries have to end, once the file is being closed
_STOPS = "the backend stops"
_STEPS = 10_000  # of SQLite's machine between two looks at the clock

Write = Callable[[sqlite3.Connection], None]


class Full(RuntimeError):
    """The writer is behind: try again in a moment."""


class Unusable(RuntimeError):
    """The file cannot be used. The message says why, and what to do."""


class Timeout(RuntimeError):
    """A query took longer than it may."""


class Store(Protocol):
    """A set of tables in the file."""

    schema: str
    """SQL that makes the tables in an empty file."""

    def oldest(self, connection: sqlite3.Connection) -> int | None:
        """Give the time of the oldest thing kept, in nanoseconds since the epoch."""

    def delete_oldest(self, connection: sqlite3.Connection, before: int) -> int:
        """Delete some of the oldest, all of it from before that time, in well under 50 ms; say how many things."""


@dataclass
class Figures:
    """What the writer did and has to do, for metrics."""

    queue_capacity_bytes: int = 0
    queued_bytes: int = 0
    queued_writes: int = 0
    groups: int = 0
    failed_writes: int = 0
    deleted: int = 0
    file_bytes: int = 0
    used_bytes: int = 0


class Database:
    """The file.

    Args:
        path: Where it is, or will be. Its folder has to exist.
        max_bytes: How much of it may be in use; above that the oldest is deleted.
        max_age_seconds: What is older is deleted.
        queue_bytes: How much may wait for the writer.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 1024 * MEGABYTE,
        max_age_seconds: float = 24 * 3600,
        queue_bytes: int = 24 * MEGABYTE,
    ) -> None:
        self.figures = Figures(queue_capacity_bytes=queue_bytes)
        self._path = path
        self._stores: list[Store] = []
        self._max_bytes = max_bytes
        self._max_age = max_age_seconds
        self._queue: deque[tuple[Write, int]] = deque()
        self._tell: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._busy = False
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._reading = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._next_look = 0.0
        self._connection: sqlite3.Connection
        self._lock: IO[str]

    def add(self, store: Store) -> None:
        """Give a store its place in the file; before `start`."""
        self._stores.append(store)

    def start(self) -> None:
        """Open the file and start the writer.

        Raises:
            Unusable: The file cannot be used.
        """
        self._lock = _lock(self._path)
        try:
            self._connection = self._open()
        except BaseException:
            self._lock.close()
            raise
        self._measure()
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, then close the file."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._reading, _READERS_END_SECONDS)
        if idle:  # else they are the process's end to close: SQLite allows no closing under a query
            for reader in self._readers:
                reader.close()
        self._connection.close()
        self._lock.close()

    def write(self, write: Write, size: int = 0) -> None:
        """Queue a write, a function that is given the connection, inside a transaction.

        Args:
            write: Runs in the writer's thread. If it fails, what it did is undone, and no other write is harmed.
            size: About how many bytes it holds on to while it waits.

        Raises:
            Full: There is no room for it now.
        """
        with self._changed:
            if self._stopping or (self._queue and self.figures.queued_bytes + size > self.figures.queue_capacity_bytes):
                raise Full
            self._queue.append((write, size))
            self.figures.queued_bytes += size
            self.figures.queued_writes += 1
            self._changed.notify_all()

    def once_written(self, tell: Callable[[], None]) -> None:
        """Call something when what a write does is in the file, which it may never be; from inside that write."""
        self._tell.append(tell)

    @property
    def is_full(self) -> bool:
        """Whether a write would most likely be refused now: reason enough not to prepare one."""
        return self.figures.queued_bytes > self.figures.queue_capacity_bytes * _NEARLY_FULL

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all that was queued is written; say whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_seconds)

    @contextlib.contextmanager
    def read(self, timeout_seconds: float = _READ_SECONDS) -> Iterator[sqlite3.Connection]:
        """Give this thread's connection for reading: one consistent state of the file, for as long as this takes.

        Raises:
            Timeout: It took too long, or the file is being closed. A query that nobody waits for must not go on.
        """
        with self._changed:
            if self._stopping:
                raise Timeout(_STOPS)
            self._reading += 1
        try:
            connection = self._reader()
            deadline = time.monotonic() + timeout_seconds
            connection.set_progress_handler(lambda: self._stopping or time.monotonic() > deadline, _STEPS)
            connection.execute("BEGIN")
            try:
                yield connection
            except sqlite3.OperationalError as error:
                if self._stopping:
                    raise Timeout(_STOPS) from error
                if time.monotonic() > deadline:
                    raise Timeout(f"the query took longer than {timeout_seconds:g} s") from error
                raise
            finally:
                connection.set_progress_handler(None, 0)
                connection.execute("ROLLBACK")
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    # -- opening

    def _open(self) -> sqlite3.Connection:
        """Open the file for writing, with all tables in it."""
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            raise Unusable(
                f"{self._path} is no usable SQLite file ({error}): delete it, or set EMBEDDED_DATABASE to another"
            ) from error

    def _opened(self) -> sqlite3.Connection:
        connection = self._connect()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        new = not (application or version or tables)  # or its first process was killed before it had made the tables
        if not new:
            if application != APPLICATION_ID:
                raise Unusable(f"{self._path} belongs to another program: set EMBEDDED_DATABASE to another file")
            if version != FORMAT:
                # Telemetry of a day at most is not worth a migration.
                connection.close()
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                logs.get_logger().warning("database.replaced", format=version, wanted=FORMAT)
                connection, new = self._connect(), True
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last second, not the file
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * 4096}")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA temp_store = MEMORY")
        if new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
            connection.execute("BEGIN")
            for store in self._stores:
                for statement in store.schema.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")  # writes into the file: first it is to be known as ours
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=256)
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA cache_size = -4096")
            with self._changed:
                self._readers.append(connection)
        return connection

    # -- the writer's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopping, _IDLE_SECONDS)
                if self._stopping and not self._queue:
                    return
                idle = not self._queue
                self._busy = not idle
                if self._queue and not self._stopping:
                    self._changed.wait_for(self._has_enough, _LINGER_SECONDS)
            try:
                if not idle:
                    self._write_group()
                self._tidy(idle=idle)
            except Exception as error:  # noqa: BLE001  # a full disk, say: what comes later may succeed
                logs.get_logger().error("database.failed", exc_info=error)
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                time.sleep(_LINGER_SECONDS)

    def _has_enough(self) -> bool:
        """Whether there is so much to write that waiting for more would cost more than it saves."""
        return self._stopping or self.figures.queued_bytes > self.figures.queue_capacity_bytes * _ENOUGH

    def _write_group(self) -> None:
        """Write what is queued, and what comes meanwhile, as one transaction."""
        taken = 0
        began = time.monotonic()
        self._tell.clear()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            while (write := self._take()) is not None:
                taken += 1
                self._apply(write)
                if time.monotonic() - began > _GROUP_SECONDS:
                    break
            self._connection.execute("COMMIT")
            self.figures.groups += 1
            for tell in self._tell:
                tell()
        except Exception:
            self.figures.failed_writes += taken
            raise

    def _take(self) -> Write | None:
        with self._changed:
            if not self._queue:
                return None
            write, size = self._queue.popleft()
            self.figures.queued_bytes -= size
            self.figures.queued_writes -= 1
            return write

    def _apply(self, write: Write) -> None:
        before = len(self._tell)
        self._connection.execute("SAVEPOINT one")
        try:
            write(self._connection)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # the whole group is lost: a full disk
            self._connection.execute("ROLLBACK TO one")
            del self._tell[before:]
            self.figures.failed_writes += 1
            logs.get_logger().error("write.failed", exc_info=error)
        self._connection.execute("RELEASE one")

    def _tidy(self, *, idle: bool) -> None:
        """Delete what is too old or too much, for a moment, and give its space back."""
        self._measure()
        now = time.monotonic()
        deadline = now + _TIDY_SECONDS
        if now >= self._next_look:
            self._next_look = now + _IDLE_SECONDS
            before = time.time_ns() - int(self._max_age * 1e9)
            for store in self._stores:
                while self._delete(store, before) and time.monotonic() < deadline:
                    self._next_look = 0  # there may be more
        while self.figures.used_bytes > self._max_bytes and self._delete_anything():
            self._measure()
            # Only far above the limit may writing wait for deleting; the full queue then slows the senders.
            if time.monotonic() > deadline and self.figures.used_bytes < self._max_bytes * 1.05:
                break
        while self.figures.file_bytes > self.figures.used_bytes and (idle or self.figures.file_bytes > self._max_bytes):
            self._connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
            self._measure()
            if time.monotonic() > deadline:
                break

    def _delete_anything(self) -> bool:
        """Delete some of what is oldest of all."""
        ages = [(oldest, store) for store in self._stores if (oldest := store.oldest(self._connection)) is not None]
        if not ages:
            return False
        return self._delete(min(ages, key=lambda age: age[0])[1], time.time_ns() + 10**18)

    def _delete(self, store: Store, before: int) -> bool:
        self._connection.execute("BEGIN IMMEDIATE")
        deleted = store.delete_oldest(self._connection, before)
        self._connection.execute("COMMIT")
        self.figures.deleted += deleted
        return deleted > 0

    def _measure(self) -> None:
        (page_size,) = self._connection.execute("PRAGMA page_size").fetchone()
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        self.figures.file_bytes = pages * page_size
        self.figures.used_bytes = (pages - free) * page_size


def _lock(path: Path) -> IO[str]:
    """Make sure that no other process uses the file: two would each delete what the other still counts on."""
    try:
        lock = Path(f"{path}.lock").open("w", encoding="utf-8")  # noqa: SIM115  # held until `stop`
    except OSError as error:
        raise Unusable(f"{path} cannot be written ({error.strerror}): set EMBEDDED_DATABASE to another") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise Unusable(f"{path} is in use by another process: stop that first") from error
    return lock
