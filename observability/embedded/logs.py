"""Log lines in the SQLite file: how they get there, and how a query finds them.

A stream is a set of labels, as in Loki. What else is known about a line is its metadata, which queries see as labels.
"""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import orjson

from observability.embedded.logql.ast import Both, Condition, Json, LabelFilter, LineFilter, LogQuery, Matcher
from observability.embedded.logql.line import EXTRACTED, Line
from observability.embedded.logql.pipeline import Wants, json_labels, text_test

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from observability.embedded.database import Database

MAX_LINE = 256 * 1024
"""Characters kept of a line: what Loki takes, in bytes."""

INDEXED = {
    "service.name": "service_name",
    "service.namespace": "service_namespace",
    "deployment.environment.name": "deployment_environment_name",
}
"""The resource attributes that are labels of the stream. All others are metadata, as Loki is configured here."""

UNKNOWN_SERVICE = "unknown_service"
"""The service of lines that name none, in Loki too."""

_DAY_NS = 24 * 3600 * 1_000_000_000
_DELETED_AT_ONCE = 500
_SAMPLED = 100  # lines whose size stands for that of all
_PUSHED = 10  # line filters that SQLite does
_ID_BITS = 40  # for the entries of a stream; there may be 2**23 streams
_ROW_BYTES = 100  # of Python's around a row
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class LogEntry:
    """A log line, and what is known about it."""

    timestamp_ns: int
    labels: dict[str, str]
    metadata: dict[str, str]
    line: str


@dataclass
class Prepared:
    """Entries as rows, made outside of the writer's thread."""

    rows: list[tuple[str, int, int, bytes | None, str, str]] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True)
class Volume:
    """How much a stream holds in a time; the bytes are an estimate, as Loki's are."""

    labels: dict[str, str]
    entries: int
    bytes: int


class LogStore:
    """The tables of the logs.

    Args:
        database: The file they are in.
    """

    schema = """
        CREATE TABLE streams (id INTEGER PRIMARY KEY, labels TEXT NOT NULL UNIQUE);
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, ts INTEGER NOT NULL, hash INTEGER NOT NULL, trace BLOB,
            metadata TEXT NOT NULL, line TEXT NOT NULL
        );
        CREATE UNIQUE INDEX entries_time ON entries (stream, ts, hash);
        CREATE INDEX entries_trace ON entries (trace, ts) WHERE trace IS NOT NULL;
        CREATE TABLE tails (
            device INTEGER, inode INTEGER, offset INTEGER NOT NULL, skipping INTEGER NOT NULL, head BLOB NOT NULL,
            PRIMARY KEY (device, inode)
        ) WITHOUT ROWID
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.add(self)

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Queue entries to be written. One that is there already, line and metadata, is not written again.

        Raises:
            Full: The writer is behind.
        """
        prepared = prepare(entries)
        self.database.write(lambda connection: insert(connection, prepared), prepared.size)

    # -- what the file asks of its stores

    def oldest(self, connection: sqlite3.Connection) -> int | None:
        """Give the time of the oldest entry."""
        found = self._oldest_stream(connection)
        return found[1] if found else None

    def delete_oldest(self, connection: sqlite3.Connection, before: int) -> int:
        """Delete some of the oldest entries, and a stream that has none left."""
        found = self._oldest_stream(connection)
        if found is None or found[1] >= before:
            return 0
        stream, _ = found
        deleted = connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE stream = ? AND ts < ? ORDER BY ts LIMIT ?)",
            (stream, before, _DELETED_AT_ONCE),
        ).rowcount
        connection.execute(
            "DELETE FROM streams WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE stream = ?1)", (stream,)
        )
        return deleted

    def _oldest_stream(self, connection: sqlite3.Connection) -> tuple[int, int] | None:
        found: tuple[int, int] | None = connection.execute(
            "SELECT id, (SELECT min(ts) FROM entries WHERE stream = streams.id) AS ts FROM streams "
            "WHERE ts IS NOT NULL ORDER BY ts LIMIT 1"
        ).fetchone()
        return found


class Reader:
    """Looks at the logs through a connection for reading: what a query is computed from."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def lines(self, query: LogQuery, start: int, end: int, *, backward: bool, wanted: Wants) -> Iterator[Line]:
        """Give the lines of the selector's streams with `start <= timestamp < end`.

        Filters that SQLite can do faster are done here already: on a trace id by its index, on a text in the line.
        What is not wanted of a line is not read: its time alone is in an index.
        """
        streams = self._matching([query.matchers])
        order = "DESC" if backward else "ASC"
        conditions, values = _pushed_filters(query)
        text = "line" if wanted.text else "''"
        if (trace := _pushed_trace(query)) is not None:
            cursor = self._connection.execute(
                f"SELECT stream, ts, {text}, metadata FROM entries INDEXED BY entries_trace "
                f"WHERE trace = ? AND ts >= ? AND ts < ?{conditions} ORDER BY ts {order}, id {order}",
                (trace, start, end, *values),
            )
            for stream, at, line, metadata in cursor:
                if stream in streams:
                    yield Line(at, line, streams[stream], orjson.loads(metadata))
            return

        def of_stream(stream: int, labels: dict[str, str]) -> Iterator[Line]:
            read = wanted.labels is None or not wanted.labels <= labels.keys()
            sql = (
                f"SELECT ts, {text}, {'metadata' if read else 'NULL'} FROM entries "
                f"WHERE stream = ? AND ts >= ? AND ts < ?{conditions} ORDER BY ts {order}, id {order}"
            )
            none: dict[str, str] = {}
            for at, line, metadata in self._connection.execute(sql, (stream, start, end, *values)):
                yield Line(at, line, labels, orjson.loads(metadata) if read else none)

        each = [of_stream(stream, labels) for stream, labels in streams.items()]
        if len(each) == 1 or not wanted.in_order:
            yield from chain.from_iterable(each)
        else:
            yield from heapq.merge(*each, key=attrgetter("timestamp"), reverse=backward)

    def series(self, selectors: Sequence[Sequence[Matcher]], start: int, end: int) -> list[dict[str, str]]:
        """Give the streams that match one of the selectors (all, if there is none) and have a line in that time."""
        matching = self._matching(selectors or [()])
        return [labels for stream, labels in matching.items() if self._has_lines(stream, start, end)]

    def volumes(self, selector: Sequence[Matcher], start: int, end: int) -> list[Volume]:
        """Give how much each stream of a selector holds in that time."""
        volumes = []
        for stream, labels in self._matching([selector]).items():
            where = "stream = ? AND ts >= ? AND ts < ?"
            (entries,) = self._connection.execute(
                f"SELECT count(*) FROM entries WHERE {where}",
                (stream, start, end),
            ).fetchone()
            if entries:
                (size,) = self._connection.execute(
                    f"SELECT avg(length(line)) FROM (SELECT line FROM entries WHERE {where} LIMIT {_SAMPLED})",
                    (stream, start, end),
                ).fetchone()
                volumes.append(Volume(labels, entries, round(entries * size)))
        return volumes

    def _matching(self, selectors: Sequence[Sequence[Matcher]]) -> dict[int, dict[str, str]]:
        tests: list[list[tuple[str, Callable[[str], bool]]]] = [
            [(matcher.name, text_test(matcher)) for matcher in selector] for selector in selectors
        ]
        found = {}
        for stream, text in self._connection.execute("SELECT id, labels FROM streams").fetchall():
            labels: dict[str, str] = orjson.loads(text)
            if any(all(test(labels.get(name, "")) for name, test in selector) for selector in tests):
                found[stream] = labels
        return found

    def _has_lines(self, stream: int, start: int, end: int) -> bool:
        return bool(
            self._connection.execute(
                "SELECT 1 FROM entries WHERE stream = ? AND ts >= ? AND ts < ? LIMIT 1", (stream, start, end)
            ).fetchone()
        )


def prepare(entries: Iterable[LogEntry]) -> Prepared:
    """Make rows of entries."""
    prepared = Prepared()
    streams: dict[tuple[tuple[str, str], ...], str] = {}
    for entry in entries:
        key = tuple(entry.labels.items())
        if (labels := streams.get(key)) is None:
            labels = streams[key] = orjson.dumps(entry.labels, option=orjson.OPT_SORT_KEYS).decode()
        line = entry.line[:MAX_LINE]
        metadata = _beside(entry.labels, entry.metadata)
        text = orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
        digest = blake2b(text, digest_size=8)
        digest.update(line.encode())
        prepared.rows.append(
            (
                labels,
                entry.timestamp_ns,
                int.from_bytes(digest.digest(), "big", signed=True),
                _trace_of(metadata, line),
                text.decode(),
                line,
            )
        )
        prepared.size += len(line) + len(text) + _ROW_BYTES
    return prepared


def _beside(labels: dict[str, str], metadata: dict[str, str]) -> dict[str, str]:
    """Give metadata the names that Loki does when the stream has labels of the same names."""
    if labels.keys().isdisjoint(metadata):
        return metadata
    return {f"{name}{EXTRACTED}" if name in labels else name: value for name, value in metadata.items()}


def insert(connection: sqlite3.Connection, prepared: Prepared) -> None:
    """Write prepared entries, in the writer's thread.

    The ids of a stream's entries follow one another, so that they lie together in the file, and reading one stream
    does not touch the pages of the others.
    """
    streams: dict[str, int] = {}
    ids: dict[str, Iterator[int]] = {}
    for labels in {row[0] for row in prepared.rows}:
        connection.execute("INSERT OR IGNORE INTO streams (labels) VALUES (?)", (labels,))
        (stream,) = connection.execute("SELECT id FROM streams WHERE labels = ?", (labels,)).fetchone()
        (last,) = connection.execute(
            "SELECT max(id) FROM entries WHERE id >= ? AND id < ?", (stream << _ID_BITS, (stream + 1) << _ID_BITS)
        ).fetchone()
        streams[labels] = stream
        ids[labels] = count((stream << _ID_BITS) + 1 if last is None else last + 1)
    connection.executemany(
        "INSERT OR IGNORE INTO entries (id, stream, ts, hash, trace, metadata, line) VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((next(ids[labels]), streams[labels], *row) for labels, *row in prepared.rows),
    )


def is_plausible(timestamp_ns: int, now_ns: int) -> bool:
    """Say whether a line can have this time. One that is far ahead would outlive all others: it never gets old."""
    return 0 <= timestamp_ns <= now_ns + _DAY_NS


# --- filters that SQLite does ---


def _pushed_filters(query: LogQuery) -> tuple[str, list[str]]:
    conditions = ""
    values: list[str] = []
    for stage in query.stages[:_PUSHED]:
        if not isinstance(stage, LineFilter | LabelFilter | Json):
            break  # it may change the line
        if isinstance(stage, LineFilter) and stage.operator in {"|=", "!="} and len(stage.values) <= _PUSHED:
            contained = " OR ".join("instr(line, ?) > 0" for _ in stage.values)
            conditions += f" AND {'NOT ' if stage.operator == '!=' else ''}({contained})"
            values.extend(stage.values)
    return conditions, values


def _pushed_trace(query: LogQuery) -> bytes | None:
    """Give the trace id that each line has to have, if the query says so before it changes any label.

    `| json` may stand before it: a line's own trace id is in the index when its metadata has none.
    """
    if any(matcher.name == "trace_id" for matcher in query.matchers):
        return None
    for stage in query.stages:
        if isinstance(stage, LabelFilter):
            found = _trace_in(stage.condition)
            if found is not None:
                return found
        elif not isinstance(stage, LineFilter) and stage != Json():
            return None
    return None


def _trace_in(condition: Condition) -> bytes | None:
    match condition:
        case Matcher("trace_id", "=", value) if _TRACE_ID.fullmatch(value):
            return bytes.fromhex(value)
        case Both(left, right):
            return _trace_in(left) or _trace_in(right)
    return None


def _trace_of(metadata: dict[str, str], line: str) -> bytes | None:
    trace = metadata.get("trace_id")
    if trace is None and ('"trace' in line or "\\u" in line):
        trace = json_labels(line).get("trace_id")  # as the query will see it
    return bytes.fromhex(trace) if trace and _TRACE_ID.fullmatch(trace) else None


def json_object(line: str) -> dict[str, Any] | None:
    """Read a line as a JSON object; None if it is none."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
