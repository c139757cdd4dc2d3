"""Finds the traces that fit a query, newest first, without opening a span where the tables can tell.

What counts is when a span of the trace began, whichever came first: a trace that runs for hours is found by what it did
in the last minutes.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability.embedded import tags, terms

FOREVER = 2**63 - 1  # SQLite's largest number
SLACK = 60 * 10**9  # a trace's spans are looked for this long before and after its key
_RARE = 1000  # traces with a term, up to which it is worth beginning a search there
_OF_SERVICE = " FROM span JOIN operation ON operation.id = span.operation WHERE trace = ? AND service = ?"


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
class Condition:
    """What one part of a query asks of a table: a row with one of the terms."""

    table: str
    terms: Sequence[int]
    durations: Sequence[int] = ()

    @property
    def terms_sql(self) -> str:
        """What asks for its terms."""
        return f"term IN ({', '.join('?' * len(self.terms))})"

    @property
    def durations_sql(self) -> str:
        """What asks for its durations, if it has some."""
        return " AND longest >= ? AND shortest <= ?" if self.durations else ""

    @property
    def exists_sql(self) -> str:
        """What asks it of a trace that another condition has found."""
        return (
            f" AND EXISTS (SELECT 1 FROM {self.table} WHERE {self.terms_sql} AND trace = one.trace{self.durations_sql})"
        )

    @property
    def values(self) -> list[int]:
        """What the question marks of its SQL stand for."""
        return [*self.terms, *self.durations]

    def count(self, connection: sqlite3.Connection, between: tuple[int, int]) -> int:
        """Count its rows, as far as that matters."""
        if self.durations:
            return _RARE  # what is rare about a duration is not known without looking at all
        sql = f"SELECT 1 FROM {self.table} WHERE {self.terms_sql} AND trace BETWEEN ? AND ? LIMIT {_RARE}"
        return len(connection.execute(sql, [*self.terms, *between]).fetchall())


@dataclass(frozen=True)
class Candidate:
    """A trace that may fit."""

    key: int
    is_stretched: bool


def tag_conditions(connection: sqlite3.Connection, query: Query) -> list[Condition]:
    """Make the conditions of a query's tags, which takes a look at all origins of the service."""
    return [_mark_condition(connection, query.service, *tag) for tag in query.tags.items()]


def candidates(connection: sqlite3.Connection, query: Query, of_tags: Sequence[Condition]) -> Iterator[Candidate]:
    """Give the traces that may fit, newest first; `fits` has the last word."""
    conditions = list(of_tags)
    if not conditions or query.operation or query.has_duration:
        conditions.append(_extent_condition(connection, query))
    near = ((key, key, False) for key in _near(connection, query, conditions))
    stretched = ((latest, key, True) for latest, key in _stretched(connection, query, conditions))
    for _, key, is_stretched in heapq.merge(near, stretched, reverse=True):
        yield Candidate(key, is_stretched)


def _near(connection: sqlite3.Connection, query: Query, conditions: Sequence[Condition]) -> Iterator[int]:
    """Find the traces all of whose spans began at about their key: nearly all traces there are."""
    between = (query.start - SLACK, min(query.end + SLACK, FOREVER))
    # The search begins with the condition that the fewest traces meet: for an order's id, with one trace.
    first = min(conditions, key=lambda condition: condition.count(connection, between))
    sql = (
        f"SELECT trace FROM {first.table} AS one WHERE term = ? AND trace BETWEEN ? AND ?{first.durations_sql}"
        " AND NOT EXISTS (SELECT 1 FROM stretched WHERE trace = one.trace)"
    )
    values = [*between, *first.durations]
    for other in conditions:
        if other is not first:
            sql += other.exists_sql
            values += other.values
    # Each term's rows lie in order, so nothing is sorted, and no more is read than is needed.
    cursors = [connection.execute(f"{sql} ORDER BY trace DESC", [term, *values]) for term in first.terms]
    for key, _ in groupby(heapq.merge(*cursors, reverse=True)):
        yield key[0]


def _stretched(
    connection: sqlite3.Connection, query: Query, conditions: Sequence[Condition]
) -> Iterator[tuple[int, int]]:
    """Find the traces that have spans far from their key; of each, the start of its newest span in the time, and it."""
    sql = "SELECT min(latest, ?), trace FROM stretched AS one WHERE earliest <= ? AND latest >= ?"
    values = [query.end, query.end, query.start]
    for condition in conditions:
        sql += condition.exists_sql
        values += condition.values
    yield from connection.execute(f"{sql} ORDER BY 1 DESC, 2 DESC", values)


def _mark_condition(connection: sqlite3.Connection, service: str, key: str, value: str) -> Condition:
    """Ask for a tag: of a span, of an event, or of where the spans come from."""
    wanted = [terms.digest(terms.joined("tag", service, key, value))]
    rows = connection.execute("SELECT id, resource, scope FROM origin WHERE service = ?", (service,))
    for origin, resource, scope in rows:
        of_origin = tags.of_resource(Resource.FromString(resource)) + tags.of_scope(
            InstrumentationScope.FromString(scope)
        )
        if any(tag[0] == key and tags.text(tag[1], tag[2]) == value for tag in of_origin):
            wanted.append(origin)
    return Condition("mark", wanted)


def _extent_condition(connection: sqlite3.Connection, query: Query) -> Condition:
    durations = (query.min_duration, query.max_duration) if query.has_duration else ()
    if query.operation:
        return Condition("extent", [terms.term("operation", query.service, query.operation)], durations)
    if query.is_between:
        # A service has short and long spans in each trace; one operation's are mostly alike.
        rows = connection.execute("SELECT DISTINCT term FROM operation WHERE service = ?", (query.service,))
        return Condition("extent", [term for (term,) in rows], durations)
    return Condition("extent", [terms.term("service", query.service)], durations)


def fits(connection: sqlite3.Connection, candidate: Candidate, query: Query, of_tags: Sequence[Condition]) -> bool:
    """Look at the spans of a trace where the index cannot decide: at the edges of the time, and between durations.

    The operation and the tags have to be those of spans that began in the time; a duration may be any span's.
    """
    key = candidate.key
    if query.is_between and not _lasts(connection, key, query):
        return False
    if query.start + SLACK <= key <= query.end - SLACK and not candidate.is_stretched:
        return True
    values = [key, query.service, query.start, query.end]
    if not connection.execute(f"SELECT 1{_OF_SERVICE} AND start NOT BETWEEN ? AND ? LIMIT 1", values).fetchone():
        return True
    if of_tags and not _has_tags(connection, values, query.service, of_tags):
        return False
    sql = f"SELECT 1{_OF_SERVICE} AND start BETWEEN ? AND ?"
    if query.operation:
        sql += " AND name = ?"
        values.append(query.operation)
    return connection.execute(f"{sql} LIMIT 1", values).fetchone() is not None


def _lasts(connection: sqlite3.Connection, key: int, query: Query) -> bool:
    sql = f"SELECT 1{_OF_SERVICE} AND duration BETWEEN ? AND ?"
    values = [key, query.service, query.min_duration, query.max_duration]
    if query.operation:
        sql += " AND name = ?"
        values.append(query.operation)
    return connection.execute(f"{sql} LIMIT 1", values).fetchone() is not None


def _has_tags(
    connection: sqlite3.Connection, values: Sequence[object], service: str, of_tags: Sequence[Condition]
) -> bool:
    found: set[int] = set()
    sql = f"SELECT origin, kind, rest{_OF_SERVICE} AND start BETWEEN ? AND ?"
    for origin, kind, rest in connection.execute(sql, values):
        found.add(origin)
        found.update(terms.of_span(service, Span.FromString(rest), kind))
    return all(not found.isdisjoint(condition.terms) for condition in of_tags)
