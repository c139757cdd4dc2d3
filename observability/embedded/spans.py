"""The traces: how spans are kept, found again and deleted.

A trace's key is the start of its first span that came, in nanoseconds: keys are in the order of time, so "the newest"
and "between" need no index of their own. The few traces that have spans far from their key are in the table
`stretched` too. What a search can ask for is a term, a hash of service, key and value. The table `mark` has one row for
each term and trace: finding the one trace of an order among millions of spans is one look, and a search opens no span
to see whether it fits.

The conditions of a search may be met by different spans of the service, as in Jaeger on Badger.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby, islice, repeat
from operator import itemgetter

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from observability.embedded import tags, terms
from observability.embedded.database import Database
from observability.embedded.search import FOREVER, SLACK, Query, candidates, fits, tag_conditions

MAX_SPANS = 10_000  # of one trace in an answer, as Jaeger's `max_trace_size`
MAX_TRACE = 12 * 1024 * 1024  # bytes of it, which as JSON are about three times as many
MAX_ITEMS = 256  # attributes, events and links of a span, each
MAX_VALUE = 32 * 1024  # bytes of one value

_MAX_LINKED = 10 * MAX_SPANS  # of one trace, in which callers are looked for at once
_LARGE_SPAN = 4 * MAX_ITEMS  # bytes: what is smaller cannot break a limit
_MOMENTS = 2**24  # nanoseconds, among which traces of one start find their keys
_DELETE_SPANS = 300  # at once: about 20 ms of work


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
        ) WITHOUT ROWID;
        CREATE TABLE stretched (trace INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL)
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
        stretched: dict[int, tuple[int, int]] = {}
        for batch in batches:
            service = tags.service_name(batch.resource)
            resource = batch.resource.SerializeToString(deterministic=True)
            everything = terms.term("service", service)
            for group in batch.scope_spans:
                scope = group.scope.SerializeToString(deterministic=True)
                origin = terms.digest(b"\0".join((service.encode(), resource, scope)))
                origins[origin] = (origin, service, resource, scope)
                for span in group.spans:
                    key = keys.of(span)
                    named = terms.term("operation", service, span.name)
                    operation = terms.term("kind", service, span.name, str(span.kind))
                    operations[operation] = (operation, named, service, span.name, span.kind)
                    _bound(span)
                    marks.add((origin, key))
                    marks.update(zip(terms.of_span(service, span, span.kind), repeat(key), strict=False))
                    row = _row(key, operation, origin, span)
                    spans.append(row)
                    start, duration = row[2], row[4]
                    if abs(start - key) > SLACK:
                        earliest, latest = stretched.get(key, (key, key))
                        stretched[key] = (min(earliest, start), max(latest, start))
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
        connection.executemany(
            "INSERT INTO stretched VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)",
            ((key, *between) for key, between in stretched.items()),
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
        marked: set[int] = set()
        leading = self._leading.setdefault(trace, (set(), set()))
        for _, _, origin, named, service, kind, rest in rows:
            marked.update(terms.of_span(service, Span.FromString(rest), kind))
            leading[0].add(origin)
            leading[1].update((named, terms.term("service", service)))
        connection.executemany("DELETE FROM mark WHERE term = ? AND trace = ?", ((term, trace) for term in marked))
        connection.executemany(
            "DELETE FROM span WHERE trace = ? AND id = ? AND start = ?", ((trace, row[0], row[1]) for row in rows)
        )
        return len(rows)

    def _delete_trace(self, connection: sqlite3.Connection, trace: int) -> None:
        """Delete what is left of a trace without spans, and the names that no other has."""
        connection.execute("DELETE FROM trace WHERE key = ?", (trace,))
        connection.execute("DELETE FROM stretched WHERE trace = ?", (trace,))
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
            of_tags = tag_conditions(connection, query)
            for candidate in candidates(connection, query, of_tags):
                if not fits(connection, candidate, query, of_tags):
                    continue
                row = connection.execute("SELECT id FROM trace WHERE key = ?", (candidate.key,)).fetchone()
                if row is None:
                    continue  # the process ended while it deleted a huge trace
                yield _load(connection, candidate.key, *row)
                found += 1
                if found == query.limit:
                    break

    def dependencies(self, start: int, end: int) -> list[tuple[str, str, int]]:
        """Say which service called which how often, in the traces of a time; of a huge one, in a part."""
        calls: Counter[tuple[str, str]] = Counter()
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT trace, span.id, parent, service, kind FROM span JOIN operation ON operation.id = span.operation"
                " WHERE trace IN (SELECT key FROM trace WHERE key BETWEEN ?1 AND ?2"
                " UNION SELECT trace FROM stretched WHERE earliest <= ?2 AND latest >= ?1) ORDER BY trace",
                (start, end),
            )
            for _, trace in groupby(rows, key=itemgetter(0)):
                calls.update(_calls([row[1:] for row in islice(trace, _MAX_LINKED)]))
        return [(caller, callee, count) for (caller, callee), count in sorted(calls.items())]


def _calls(spans: Sequence[tuple[bytes, bytes, str, int]]) -> Iterator[tuple[str, str]]:
    """Give caller and callee of each call in a trace, whose spans are an id, a parent, a service and a kind.

    A span has one parent. Where a client and a server share an id, as Zipkin's senders do, the client is the parent of
    the server, and the server of what is below the id.
    """
    first: dict[bytes, str] = {}
    clients: dict[bytes, str] = {}
    servers: dict[bytes, str] = {}
    for span_id, _, service, kind in spans:
        first.setdefault(span_id, service)
        if kind == Span.SPAN_KIND_CLIENT:
            clients.setdefault(span_id, service)
        elif kind == Span.SPAN_KIND_SERVER:
            servers.setdefault(span_id, service)
    upper = {**first, **{span_id: servers[span_id] for span_id in servers.keys() & clients.keys()}}
    for span_id, parent, service, kind in spans:
        caller = clients.get(span_id) if kind == Span.SPAN_KIND_SERVER else None
        if caller is None:
            caller = upper.get(parent)
        if caller is not None and caller != service:
            yield caller, service


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
            key = start + terms.digest(span.trace_id + attempt.to_bytes(4)) % _MOMENTS
        return key


def _row(key: int, operation: int, origin: int, span: Span) -> tuple[int, bytes, int, bytes, int, int, int, bytes]:
    """Take a span apart into the columns of its row."""
    start, end = span.start_time_unix_nano, signed(span.end_time_unix_nano)
    head = (key, span.span_id, start, span.parent_span_id, max(0, end - start), operation, origin)
    for name in ("trace_id", "span_id", "parent_span_id", "name", "kind", "flags", "start_time_unix_nano"):
        span.ClearField(name)
    if end > start:  # else the answer has to say what was wrong with it
        span.ClearField("end_time_unix_nano")
    return (*head, span.SerializeToString())


def signed(nanoseconds: int) -> int:
    """Read a time as Go does, whose times have a sign: what is too late for it is before 1970."""
    return nanoseconds - 2**64 if nanoseconds > FOREVER else nanoseconds


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
