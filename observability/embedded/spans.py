"""The traces: how spans are kept, found again and deleted.

A trace's key is the start of its first span that came, in nanoseconds: keys are in the order of time, so "the newest"
and "between" need no index of their own. What a search can ask for is a term, a hash of service, key and value. The
table `mark` has one row for each term and trace: finding the one trace of an order among millions of spans is one
look, and a search opens no span to see whether it fits.

The conditions of a search may be met by different spans of the service, as in Jaeger on Badger.
"""

import hashlib
import heapq
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count, groupby, repeat

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from observability.embedded import tags
from observability.embedded.database import Database

MAX_SPANS = 10_000  # of one trace in an answer, as Jaeger's `max_trace_size`
MAX_TRACE = 12 * 1024 * 1024  # bytes of it, which as JSON are about three times as many
MAX_ITEMS = 256  # attributes, events and links of a span, each
MAX_VALUE = 32 * 1024  # bytes of one value
FOREVER = 2**63 - 1  # SQLite's largest number

_LARGE_SPAN = 4 * MAX_ITEMS  # bytes: what is smaller cannot break a limit
_SLACK = 60 * 10**9  # a trace's spans are looked for this long before and after its key
_MOMENTS = 2**24  # nanoseconds, among which traces of one start find their keys
_RARE = 1000  # traces with a term, up to which it is worth beginning a search there
_DELETE_SPANS = 300  # at once: about 20 ms of work
_CACHED_BYTES = 256


@dataclass(frozen=True)
class Query:
    """What traces are looked for. Times and durations are in nanoseconds."""

    service: str
    operation: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    start: int = 0
    end: int = FOREVER
    min_duration: int = 0
    max_duration: int = FOREVER
    limit: int = 100

    @property
    def has_duration(self) -> bool:
        """Whether it asks for a duration at all."""
        return self.min_duration > 0 or self.max_duration < FOREVER

    @property
    def is_between(self) -> bool:
        """Whether it asks for a duration within limits, which the longest and the shortest cannot decide alone."""
        return self.min_duration > 0 and self.max_duration < FOREVER


@dataclass(frozen=True)
class Origin:
    """Where spans come from."""

    service: str
    resource: Resource
    scope: InstrumentationScope


@dataclass(frozen=True)
class StoredSpan:
    """A span as it was kept; `rest` is what has no field here."""

    id: bytes
    parent: bytes
    start: int
    duration: int
    name: str
    kind: int
    origin: Origin
    rest: Span


@dataclass(frozen=True)
class StoredTrace:
    """A trace's spans by their start: not all of them where there are more than MAX_SPANS, or MAX_TRACE bytes."""

    id: bytes
    spans: Sequence[StoredSpan]
    is_cut: bool


@dataclass
class Counts:
    """What was stored, for metrics."""

    stored: int = 0
    duplicates: int = 0


class SpanStore:
    """Keeps spans.

    Args:
        database: The file.
    """

    schema = """
        CREATE TABLE trace (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
        CREATE TABLE span (
            trace INTEGER NOT NULL, id BLOB NOT NULL, start INTEGER NOT NULL, parent BLOB NOT NULL,
            duration INTEGER NOT NULL, operation INTEGER NOT NULL, origin INTEGER NOT NULL, rest BLOB NOT NULL,
            PRIMARY KEY (trace, id, start)
        ) WITHOUT ROWID;
        CREATE TABLE operation (
            id INTEGER PRIMARY KEY, term INTEGER NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL,
            kind INTEGER NOT NULL
        );
        CREATE INDEX operation_term ON operation (term);
        CREATE INDEX operation_service ON operation (service, name);
        CREATE TABLE origin (
            id INTEGER PRIMARY KEY, service TEXT NOT NULL, resource BLOB NOT NULL, scope BLOB NOT NULL
        );
        CREATE INDEX origin_service ON origin (service);
        CREATE TABLE mark (term INTEGER NOT NULL, trace INTEGER NOT NULL, PRIMARY KEY (term, trace)) WITHOUT ROWID;
        CREATE TABLE extent (
            term INTEGER NOT NULL, trace INTEGER NOT NULL, shortest INTEGER NOT NULL, longest INTEGER NOT NULL,
            PRIMARY KEY (term, trace)
        ) WITHOUT ROWID
    """

    def __init__(self, database: Database) -> None:
        self.counts = Counts()
        self._database = database
        # Of traces that are being deleted bit by bit: their origins, and the terms of their services and operations.
        self._leading: dict[int, tuple[set[int], set[int]]] = {}
        database.add(self)

    # -- writing

    def append(self, batches: Sequence[ResourceSpans], size: int) -> None:
        """Queue spans, which are the store's from now on.

        Args:
            batches: Valid spans: ids of the right length, times that are times.
            size: About how many bytes they take.

        Raises:
            Full: There is no room for them now.
        """
        self._database.write(lambda connection: self._insert(connection, batches), size)

    def _insert(self, connection: sqlite3.Connection, batches: Iterable[ResourceSpans]) -> None:
        origins, operations, spans = {}, {}, []
        marks: set[tuple[int, int]] = set()
        extents: dict[tuple[int, int], tuple[int, int]] = {}
        keys = _Keys(connection)
        for batch in batches:
            service = tags.service_name(batch.resource)
            resource = batch.resource.SerializeToString(deterministic=True)
            everything = _term("service", service)
            for group in batch.scope_spans:
                scope = group.scope.SerializeToString(deterministic=True)
                origin = _hash(b"\0".join((service.encode(), resource, scope)))
                origins[origin] = (origin, service, resource, scope)
                for span in group.spans:
                    key = keys.of(span)
                    named = _term("operation", service, span.name)
                    operation = _term("kind", service, span.name, str(span.kind))
                    operations[operation] = (operation, named, service, span.name, span.kind)
                    _bound(span)
                    marks.add((origin, key))
                    marks.update(zip(_terms(service, span, span.kind), repeat(key), strict=False))
                    row = _row(key, operation, origin, span)
                    spans.append(row)
                    duration = row[4]
                    for term in (everything, named):
                        shortest, longest = extents.get((term, key), (duration, duration))
                        extents[term, key] = (min(shortest, duration), max(longest, duration))
        connection.executemany("INSERT OR IGNORE INTO origin VALUES (?, ?, ?, ?)", origins.values())
        connection.executemany("INSERT OR IGNORE INTO operation VALUES (?, ?, ?, ?, ?)", operations.values())
        before = connection.total_changes
        connection.executemany("INSERT OR IGNORE INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?)", spans)
        stored = connection.total_changes - before
        # In the order of the keys, so that the rows of a term are written to one page.
        connection.executemany("INSERT OR IGNORE INTO mark VALUES (?, ?)", sorted(marks))
        connection.executemany(
            "INSERT INTO extent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET shortest = min(shortest, excluded.shortest), longest = max(longest, excluded.longest)",
            sorted((*at, *extent) for at, extent in extents.items()),
        )
        duplicates = len(spans) - stored

        def count() -> None:
            self.counts.stored += stored
            self.counts.duplicates += duplicates

        self._database.once_written(count)

    # -- deleting

    def oldest(self, connection: sqlite3.Connection) -> int | None:
        """Give the time of the oldest trace, in nanoseconds."""
        (key,) = connection.execute("SELECT min(key) FROM trace").fetchone()
        return None if key is None else int(key)

    def delete_oldest(self, connection: sqlite3.Connection, before: int) -> int:
        """Delete some of the oldest spans, whole traces where they are not huge; say how many spans."""
        deleted = 0
        traces = connection.execute("SELECT key FROM trace WHERE key < ? ORDER BY key LIMIT 100", (before,)).fetchall()
        for (trace,) in traces:
            limit = _DELETE_SPANS - deleted
            taken = self._delete_spans(connection, trace, limit)
            if taken < limit:
                self._delete_trace(connection, trace)
            deleted += taken
            if deleted >= _DELETE_SPANS:
                break
        return deleted

    def _delete_spans(self, connection: sqlite3.Connection, trace: int, limit: int) -> int:
        rows = connection.execute(
            "SELECT span.id, start, origin, term, service, kind, rest"
            " FROM span JOIN operation ON operation.id = span.operation WHERE trace = ? LIMIT ?",
            (trace, limit),
        ).fetchall()
        terms: set[int] = set()
        leading = self._leading.setdefault(trace, (set(), set()))
        for _, _, origin, named, service, kind, rest in rows:
            terms.update(_terms(service, Span.FromString(rest), kind))
            leading[0].add(origin)
            leading[1].update((named, _term("service", service)))
        connection.executemany("DELETE FROM mark WHERE term = ? AND trace = ?", ((term, trace) for term in terms))
        connection.executemany(
            "DELETE FROM span WHERE trace = ? AND id = ? AND start = ?", ((trace, row[0], row[1]) for row in rows)
        )
        return len(rows)

    def _delete_trace(self, connection: sqlite3.Connection, trace: int) -> None:
        """Delete what is left of a trace without spans, and the names that no other has."""
        connection.execute("DELETE FROM trace WHERE key = ?", (trace,))
        origins, extents = self._leading.pop(trace)
        for origin in origins:
            connection.execute("DELETE FROM mark WHERE term = ? AND trace = ?", (origin, trace))
            connection.execute(
                "DELETE FROM origin WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM mark WHERE term = ?1)", (origin,)
            )
        for term in extents:
            connection.execute("DELETE FROM extent WHERE term = ? AND trace = ?", (term, trace))
            connection.execute(
                "DELETE FROM operation WHERE term = ?1 AND NOT EXISTS (SELECT 1 FROM extent WHERE term = ?1)", (term,)
            )

    # -- reading

    def services(self) -> list[str]:
        """Give the names of all services, sorted."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT DISTINCT service FROM operation ORDER BY service").fetchall()
        return [service for (service,) in rows]

    def operations(self, service: str) -> list[tuple[str, int]]:
        """Give a service's operations, each a name and a kind, sorted."""
        with self._database.read() as connection:
            return connection.execute(
                "SELECT name, kind FROM operation WHERE service = ? ORDER BY name, kind", (service,)
            ).fetchall()

    def trace(self, trace_id: bytes) -> StoredTrace | None:
        """Give one trace, None if there is no span of it."""
        with self._database.read() as connection:
            row = connection.execute("SELECT key, id FROM trace WHERE id = ?", (trace_id,)).fetchone()
            return None if row is None else _load(connection, *row)

    def search(self, query: Query) -> Generator[StoredTrace, None, None]:
        """Give the newest traces that fit, one after the other: all at once may be more than fits into memory."""
        found = 0
        with self._database.read() as connection:
            for key in _candidates(connection, query):
                if not _fits(connection, key, query):
                    continue
                row = connection.execute("SELECT id FROM trace WHERE key = ?", (key,)).fetchone()
                if row is None:
                    continue  # the process ended while it deleted a huge trace
                yield _load(connection, key, *row)
                found += 1
                if found == query.limit:
                    break

    def dependencies(self, start: int, end: int) -> list[tuple[str, str, int]]:
        """Say which service called which how often, in the traces of a time."""
        with self._database.read() as connection:
            return connection.execute(
                "WITH call AS (SELECT upper.operation AS caller, lower.operation AS callee, count(*) AS calls"
                " FROM span AS lower JOIN span AS upper ON upper.trace = lower.trace AND upper.id = lower.parent"
                " WHERE lower.trace BETWEEN ? AND ? AND upper.origin <> lower.origin GROUP BY 1, 2)"
                " SELECT one.service, other.service, sum(calls) FROM call"
                " JOIN operation AS one ON one.id = caller JOIN operation AS other ON other.id = callee"
                " WHERE one.service <> other.service GROUP BY 1, 2 ORDER BY 1, 2",
                (start, end),
            ).fetchall()


class _Keys:
    """The keys of the traces in one write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[bytes, int] = {}
        self._now = time.time_ns()

    def of(self, span: Span) -> int:
        key = self._known.get(span.trace_id)
        if key is None:
            row = self._connection.execute("SELECT key FROM trace WHERE id = ?", (span.trace_id,)).fetchone()
            key = row[0] if row is not None else self._new(span)
            self._known[span.trace_id] = key
        return key

    def _new(self, span: Span) -> int:
        start = min(span.start_time_unix_nano, self._now)  # a clock that is ahead must not outlive the retention
        insert = "INSERT OR IGNORE INTO trace VALUES (?, ?)"
        key = start
        for attempt in count():
            if self._connection.execute(insert, (key, span.trace_id)).rowcount:
                break
            # Anywhere in the next moments: thousands may begin at the same time, so the next number is taken too.
            key = start + _hash(span.trace_id + attempt.to_bytes(4)) % _MOMENTS
        return key


def _row(key: int, operation: int, origin: int, span: Span) -> tuple[int, bytes, int, bytes, int, int, int, bytes]:
    """Take a span apart into the columns of its row."""
    start, end = span.start_time_unix_nano, min(span.end_time_unix_nano, FOREVER)
    head = (key, span.span_id, start, span.parent_span_id, max(0, end - start), operation, origin)
    for name in ("trace_id", "span_id", "parent_span_id", "name", "kind", "flags", "start_time_unix_nano"):
        span.ClearField(name)
    if end > start:  # else the answer has to say what was wrong with it
        span.ClearField("end_time_unix_nano")
    return (*head, span.SerializeToString())


def _terms(service: str, span: Span, kind: int) -> list[int]:
    """Give the terms of a span's tags and of its events' fields."""
    terms = _attribute_terms(service, span.attributes)
    terms.extend([_tag_term(service, tag) for tag in tags.beside_attributes(span, kind)])
    for event in span.events:
        terms.append(_term("tag", service, tags.EVENT_NAME, event.name))
        terms.extend(_attribute_terms(service, event.attributes))
    return terms


def _attribute_terms(service: str, attributes: Iterable[KeyValue]) -> list[int]:
    # Nearly all attributes have been seen before, and their bytes are had sooner than their values.
    return [
        _known_term(service, data) if len(data) <= _CACHED_BYTES else _attribute_term(service, data)
        for data in map(KeyValue.SerializeToString, attributes)
    ]


def _attribute_term(service: str, data: bytes) -> int:
    (tag,) = tags.of_attributes([KeyValue.FromString(data)])
    return _tag_term(service, tag)


_known_term = lru_cache(maxsize=8192)(_attribute_term)


def _tag_term(service: str, tag: tags.Tag) -> int:
    key, kind, value = tag
    text = tags.text(kind, value)
    if len(text) > _CACHED_BYTES:
        return _hash(_joined("tag", service, key, text))
    return _term("tag", service, key, text)


@lru_cache(maxsize=8192)
def _term(*parts: str) -> int:
    return _hash(_joined(*parts))


def _joined(*parts: str) -> bytes:
    return "\0".join(parts).encode()


def _hash(data: bytes) -> int:
    """Hash to one of SQLite's numbers. With 64 bits, two of a million terms are the same once in 30 million files."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)


def _bound(span: Span) -> None:
    """Cut what is too much of a span: one span must not take the room of thousands."""
    if span.ByteSize() < _LARGE_SPAN:
        return
    del span.events[MAX_ITEMS:]
    del span.links[MAX_ITEMS:]
    _bound_values(span.attributes)
    for event in span.events:
        _bound_values(event.attributes)
    for link in span.links:
        _bound_values(link.attributes)


def _bound_values(attributes: RepeatedCompositeFieldContainer[KeyValue]) -> None:
    del attributes[MAX_ITEMS:]
    for attribute in attributes:
        value = attribute.value
        if value.ByteSize() <= MAX_VALUE:
            continue
        if value.HasField("string_value"):
            value.string_value = value.string_value.encode()[:MAX_VALUE].decode(errors="ignore")
        else:
            value.string_value = f"(cut: more than {MAX_VALUE} bytes)"


# -- searching


def _candidates(connection: sqlite3.Connection, query: Query) -> Iterator[int]:
    """Give the keys of traces that fit, newest first; `_fits` has the last word."""
    between = (query.start - _SLACK, min(query.end + _SLACK, FOREVER))
    conditions = [_mark_condition(connection, query.service, *tag) for tag in query.tags.items()]
    if not conditions or query.operation or query.has_duration:
        conditions.append(_extent_condition(connection, query))
    # The search begins with the condition that the fewest traces meet: for an order's id, with one trace.
    first = min(conditions, key=lambda condition: condition.count(connection, between))
    sql = f"SELECT trace FROM {first.table} AS one WHERE term = ? AND trace BETWEEN ? AND ?{first.durations_sql}"  # noqa: S608  # names of ours
    values = [*between, *first.durations]
    for other in conditions:
        if other is not first:
            sql += f" AND EXISTS (SELECT 1 FROM {other.table} WHERE {other.terms_sql} AND trace = one.trace{other.durations_sql})"  # noqa: E501, S608
            values += [*other.terms, *other.durations]
    # Each term's rows lie in order, so nothing is sorted, and no more is read than is needed.
    cursors = [connection.execute(f"{sql} ORDER BY trace DESC", [term, *values]) for term in first.terms]
    for key, _ in groupby(heapq.merge(*cursors, reverse=True)):
        yield key[0]


@dataclass(frozen=True)
class _Condition:
    """What one part of a query asks of a table: a row with one of the terms."""

    table: str
    terms: Sequence[int]
    durations: Sequence[int] = ()

    @property
    def terms_sql(self) -> str:
        return f"term IN ({', '.join('?' * len(self.terms))})"

    @property
    def durations_sql(self) -> str:
        return " AND longest >= ? AND shortest <= ?" if self.durations else ""

    def count(self, connection: sqlite3.Connection, between: tuple[int, int]) -> int:
        """Count its rows, as far as that matters."""
        if self.durations:
            return _RARE  # what is rare about a duration is not known without looking at all
        sql = f"SELECT 1 FROM {self.table} WHERE {self.terms_sql} AND trace BETWEEN ? AND ? LIMIT {_RARE}"  # noqa: S608
        return len(connection.execute(sql, [*self.terms, *between]).fetchall())


def _mark_condition(connection: sqlite3.Connection, service: str, key: str, value: str) -> _Condition:
    """Ask for a tag: of a span, of an event, or of where the spans come from."""
    terms = [_hash(_joined("tag", service, key, value))]
    rows = connection.execute("SELECT id, resource, scope FROM origin WHERE service = ?", (service,))
    for origin, resource, scope in rows:
        of_origin = tags.of_resource(Resource.FromString(resource)) + tags.of_scope(
            InstrumentationScope.FromString(scope)
        )
        if any(tag[0] == key and tags.text(tag[1], tag[2]) == value for tag in of_origin):
            terms.append(origin)
    return _Condition("mark", terms)


def _extent_condition(connection: sqlite3.Connection, query: Query) -> _Condition:
    durations = (query.min_duration, query.max_duration) if query.has_duration else ()
    if query.operation:
        return _Condition("extent", [_term("operation", query.service, query.operation)], durations)
    if query.is_between:
        # A service has short and long spans in each trace; one operation's are mostly alike.
        rows = connection.execute("SELECT DISTINCT term FROM operation WHERE service = ?", (query.service,))
        return _Condition("extent", [term for (term,) in rows], durations)
    return _Condition("extent", [_term("service", query.service)], durations)


def _fits(connection: sqlite3.Connection, key: int, query: Query) -> bool:
    """Look at the spans of a trace where the index cannot decide: at the edges of the time, and between durations."""
    inside = query.start + _SLACK <= key <= query.end - _SLACK
    if inside and not query.is_between:
        return True
    sql = (
        "SELECT 1 FROM span JOIN operation ON operation.id = span.operation WHERE trace = ? AND service = ?"
        " AND start BETWEEN ? AND ? AND duration BETWEEN ? AND ?"
    )
    values = [key, query.service, query.start, query.end, query.min_duration, query.max_duration]
    if query.operation:
        sql += " AND name = ?"
        values.append(query.operation)
    return connection.execute(f"{sql} LIMIT 1", values).fetchone() is not None


def _load(connection: sqlite3.Connection, key: int, trace_id: bytes) -> StoredTrace:
    rows = connection.execute(
        "SELECT span.id, parent, start, duration, name, kind, origin, rest"
        " FROM span JOIN operation ON operation.id = span.operation WHERE trace = ? LIMIT ?",
        (key, MAX_SPANS + 1),
    )
    origins: dict[int, Origin] = {}
    spans: list[StoredSpan] = []
    size, is_cut = 0, False
    for span_id, parent, start, duration, name, kind, origin, rest in rows:
        if origin not in origins:
            service, resource, scope = connection.execute(
                "SELECT service, resource, scope FROM origin WHERE id = ?", (origin,)
            ).fetchone()
            origins[origin] = Origin(service, Resource.FromString(resource), InstrumentationScope.FromString(scope))
        size += len(rest) + origins[origin].scope.ByteSize()  # an answer has the scope in each span
        if len(spans) == MAX_SPANS or (spans and size > MAX_TRACE):
            is_cut = True
            break
        span = StoredSpan(span_id, parent, start, duration, name, kind, origins[origin], Span.FromString(rest))
        spans.append(span)
    spans.sort(key=lambda span: (span.start, span.id))
    return StoredTrace(trace_id, spans, is_cut=is_cut)
