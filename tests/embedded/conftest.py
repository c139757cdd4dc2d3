"""The stores without a process around them."""

import contextlib
import time

import pytest

from observability.embedded.app import Backend
from observability.embedded.database import Database
from observability.embedded.settings import BackendSettings
from observability.embedded.spans import Query, SpanStore
from tests.conformance.payloads import order


class Kept:
    """A span store in a file of its own."""

    def __init__(self, path, **limits):
        self.database = Database(path, **limits)
        self.spans = SpanStore(self.database)

    def add(self, *traces):
        for trace in traces:
            for request in trace.requests():
                self.spans.append(request.resource_spans, request.ByteSize())
        assert self.database.flush()

    def orders(self, count, **kwargs):
        """Add orders, a second between each and the next, the last a minute ago; their traces."""
        begin = time.time_ns() - (60 + count) * 10**9
        traces = [order(number, start=begin + number * 10**9, **kwargs) for number in range(count)]
        self.add(*traces)
        return traces

    def find(self, service="order-service", **query):
        """The ids of the traces found, newest first."""
        return [trace.id for trace in self.spans.search(Query(service, **query))]

    def rows(self):
        """How many rows each table of the traces has."""
        with self.database.read() as connection:
            tables = ("trace", "span", "mark", "extent", "operation", "origin")
            return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


@pytest.fixture
def keep(tmp_path):
    """Open a store: `keep(max_age_seconds=60)`; all are closed in the end."""
    with contextlib.ExitStack() as stack:

        def start(**limits):
            kept = Kept(tmp_path / "embedded.sqlite", **limits)
            kept.database.start()
            stack.callback(kept.database.stop)
            return kept

        yield start


@pytest.fixture
def backend(tmp_path):
    """A backend without its servers: its database and its apps."""
    backend = Backend(BackendSettings(embedded_database=tmp_path / "embedded.sqlite"))
    backend.database.start()
    yield backend
    backend.database.stop()
