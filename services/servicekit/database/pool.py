"""PostgreSQL through psycopg2: a bounded pool with a bounded wait, and a deadline for every statement.

Connections are in autocommit mode, so each statement is a transaction of its own. If a service needs several statements
in one transaction, add a `transaction()` here.
"""

import functools
import select
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from servicekit.config import DatabaseSettings
from servicekit.telemetry.metrics import DatabaseMetrics, Metrics
from servicekit.telemetry.tracing import Tracer
from servicekit.web.errors import DependencyUnavailable

Row = Mapping[str, Any]

_OTHERS_SECONDS = 30.0  # for connections in this process that do not belong to a Database
_GRACE_SECONDS = 0.5  # so that the server's statement_timeout ends a statement first, which also frees the server


class Database:
    """A service's own schema.

    Args:
        settings: Address, role, and time limits.
        service: The service's name, which becomes PostgreSQL's `application_name`.
        metrics: The metrics of statements and waits.
        tracer: Creates a span for each statement.
        peer: The database's name in errors and log lines.
    """

    def __init__(
        self, settings: DatabaseSettings, service: str, metrics: Metrics, tracer: Tracer, *, peer: str = "database"
    ) -> None:
        self._settings = settings
        self._peer = peer
        self._service = service
        self._metrics = DatabaseMetrics(metrics)
        self._tracer = tracer
        self._attributes = functools.lru_cache(128)(self._describe)
        psycopg2.extensions.set_wait_callback(_wait)
        # Only SQLAlchemy's pool is used, since psycopg2's own raises instead of waiting when it is empty. An engine
        # would cost memory, and run statements of its own on each new connection. Its `pre_ping` would cost a round
        # trip for each statement; `_dropped` detects closed connections without one.
        self._pool = QueuePool(
            self._connect,  # type: ignore[arg-type]  # its types do not accept psycopg2's connection
            pool_size=settings.database_pool_size,
            max_overflow=0,
            timeout=settings.database_pool_wait_seconds,
            reset_on_return=None,  # in autocommit there is nothing to roll back
            use_lifo=True,
        )
        metrics.registry.register(_PoolCollector(self._pool, settings.database_pool_size))

    def fetch_one(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """Run a statement and return its only row, or None.

        Args:
            summary: Its name in metrics and traces: operation and table, such as `INSERT parcels`.
            sql: The statement, with `%(name)s` for parameters.
            parameters: Their values.

        Raises:
            DependencyUnavailable: The database did not answer in time, or no connection was free.
            psycopg2.Error: The database rejected the statement.
        """
        rows = self._execute(summary, sql, parameters)
        return rows[0] if rows else None

    def fetch_all(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a statement and return its rows. Parameters and errors as for `fetch_one`."""
        return self._execute(summary, sql, parameters)

    def ping(self) -> None:
        """Check that the database answers.

        Raises:
            DependencyUnavailable: It did not.
        """
        self.fetch_one("SELECT 1", "SELECT 1")

    def close(self) -> None:
        """Close the pool's connections."""
        self._pool.dispose()

    def _execute(self, summary: str, sql: str, parameters: Mapping[str, Any] | None) -> list[Row]:
        # One deadline for checking an idle connection, opening a new one, and the statement. The wait for the pool is
        # before that, and has its own limit.
        settings = self._settings
        allowed = settings.database_pool_wait_seconds + settings.database_timeout_seconds + _GRACE_SECONDS
        _deadline.at = time.monotonic() + allowed
        with self._tracer.client(summary, self._attributes(summary, sql)) as span:
            try:
                connection = self._take()
                try:
                    return self._run(connection, summary, sql, parameters)
                finally:
                    connection.close()
            except Exception as error:
                sqlstate = getattr(error.__cause__ or error, "pgcode", None)
                if sqlstate is not None:
                    span.set("db.response.status_code", sqlstate)
                raise
            finally:
                _deadline.at = None

    def _describe(self, summary: str, sql: str) -> dict[str, str | int]:
        operation, _, collection = summary.partition(" ")
        return {
            "db.system.name": "postgresql",
            "db.namespace": self._settings.database_name,
            "db.operation.name": operation,
            "db.collection.name": collection,
            "db.query.summary": summary,
            "db.query.text": sql,  # with %(name)s in place of the values
            "server.address": self._settings.database_host,
            "server.port": self._settings.database_port,
        }

    def _run(
        self,
        connection: PoolProxiedConnection,
        summary: str,
        sql: str,
        parameters: Mapping[str, Any] | None,
    ) -> list[Row]:
        started = time.perf_counter()
        ok = False
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(sql, parameters)
                names = [column[0] for column in cursor.description or ()]
                rows: list[Row] = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
            ok = True
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            # Lost, too slow, or shutting down: the state of the connection is unknown, so it is not used again.
            connection.invalidate(error)
            raise DependencyUnavailable(self._peer) from error
        finally:
            self._metrics.query_ended(summary, ok=ok, seconds=time.perf_counter() - started)
        return rows

    def _take(self) -> PoolProxiedConnection:
        started = time.perf_counter()
        try:
            connection = self._pool.connect()
            while _dropped(connection):  # ends, because after its old connections the pool opens a new one
                connection.invalidate()
                connection.close()
                connection = self._pool.connect()
        except PoolTimeoutError as error:
            self._metrics.connection_missed()
            raise DependencyUnavailable(self._peer) from error
        except (psycopg2.OperationalError, psycopg2.InterfaceError, OSError) as error:  # OSError: no password file
            raise DependencyUnavailable(self._peer) from error
        self._metrics.connection_taken(time.perf_counter() - started)
        return connection

    def _connect(self) -> psycopg2.extensions.connection:
        # The password is read for each connection, so a changed file takes effect with the next one.
        settings = self._settings
        connection = psycopg2.connect(
            host=settings.database_host,
            port=settings.database_port,
            dbname=settings.database_name,
            user=settings.database_user,
            password=settings.database_password_file.read_text().strip(),
            application_name=self._service,
            options=f"-c timezone=UTC -c statement_timeout={int(settings.database_timeout_seconds * 1000)}",
        )
        connection.autocommit = True
        return connection


def _dropped(connection: PoolProxiedConnection) -> bool:
    """Whether the server closed an idle connection: then its socket is readable, if only at end of file."""
    idle: Any = connection.dbapi_connection
    if idle.closed != 0:
        return True
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_deadline = threading.local()


def _wait(connection: psycopg2.extensions.connection) -> None:
    """Wait for the server, but not longer than the current call's deadline.

    libpq has no read timeout, so a frozen server, or a network that loses packets, would block a thread forever.
    psycopg2 calls this function to wait, for all connections in the process. If it raises, psycopg2 closes the
    connection.
    """
    end = getattr(_deadline, "at", None) or time.monotonic() + _OTHERS_SECONDS
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poll = select.poll()  # a new one, because libpq changes its socket when it tries the next address
        writing = state == psycopg2.extensions.POLL_WRITE
        poll.register(connection.fileno(), select.POLLOUT if writing else select.POLLIN)
        remaining = end - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise psycopg2.OperationalError("no answer from PostgreSQL in time")


class _PoolCollector(Collector):
    """Exports the pool's connections by state, read at each scrape."""

    def __init__(self, pool: QueuePool, size: int) -> None:
        self._pool = pool
        self._size = size

    def collect(self) -> Iterator[GaugeMetricFamily]:
        count = GaugeMetricFamily(
            "db_client_connection_count", "Connections of the pool.", labels=["db_client_connection_state"]
        )
        count.add_metric(["used"], self._pool.checkedout())
        count.add_metric(["idle"], self._pool.checkedin())
        yield count
        yield GaugeMetricFamily("db_client_connection_max", "Connections the pool may hold.", self._size)
