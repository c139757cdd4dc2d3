"""PostgreSQL through psycopg2: a bounded pool with a bounded wait, and a deadline for every statement.

Statements run in autocommit: each of the services' statements is a transaction of its own. The day one needs two
statements to stand or fall together, a `transaction()` belongs here.
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

_OTHERS_SECONDS = 30.0  # for connections in this process that are not a Database's
_GRACE_SECONDS = 0.5  # the server's statement_timeout should win over the client's deadline: it frees the server too


class Database:
    """A service's own schema.

    Args:
        settings: Where it is and how long to wait.
        service: The service's name, PostgreSQL's `application_name`.
        metrics: Where statements and waits are recorded.
        tracer: What makes a span of each statement.
        peer: What the database is called in errors and log lines.
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
        # Only SQLAlchemy's pool is used: psycopg2's own raises when it is empty instead of waiting. An engine around it
        # would cost memory, and statements of its own on each new connection; its `pre_ping` a round trip for each
        # statement: `_dropped` sees the same for nothing.
        self._pool = QueuePool(
            self._connect,  # type: ignore[arg-type]  # to its types, psycopg2's connection is none
            pool_size=settings.database_pool_size,
            max_overflow=0,
            timeout=settings.database_pool_wait_seconds,
            reset_on_return=None,  # in autocommit there is nothing to undo
            use_lifo=True,
        )
        metrics.registry.register(_PoolCollector(self._pool, settings.database_pool_size))

    def fetch_one(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """Run a statement and return its only row, or None.

        Args:
            summary: What it does in two words, such as `INSERT parcels`: its name in metrics and traces.
            sql: The statement, with `%(name)s` where parameters go.
            parameters: Their values.

        Raises:
            DependencyUnavailable: The database did not answer in time, or no connection was free.
            psycopg2.Error: It refused the statement.
        """
        rows = self._execute(summary, sql, parameters)
        return rows[0] if rows else None

    def fetch_all(self, summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a statement and return its rows. Parameters and errors as for `fetch_one`."""
        return self._execute(summary, sql, parameters)

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DependencyUnavailable: There was none.
        """
        self.fetch_one("SELECT 1", "SELECT 1")

    def close(self) -> None:
        """Close the pool's connections."""
        self._pool.dispose()

    def _execute(self, summary: str, sql: str, parameters: Mapping[str, Any] | None) -> list[Row]:
        # One deadline for all that the call needs: checking an idle connection, making a new one, the statement. The
        # pool's wait, which has a limit of its own, comes before.
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
            "db.query.text": sql,  # with %(name)s where the values go, which stay here
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
            # Lost, too slow, or shutting down: whatever state the connection is in, the next one starts afresh.
            connection.invalidate(error)
            raise DependencyUnavailable(self._peer) from error
        finally:
            self._metrics.query_ended(summary, ok=ok, seconds=time.perf_counter() - started)
        return rows

    def _take(self) -> PoolProxiedConnection:
        started = time.perf_counter()
        try:
            connection = self._pool.connect()
            while _dropped(connection):  # ends: what follows the pool's last old connection is a new one
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
        # The password is read each time: a changed file counts from the next connection on.
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
    """Whether the server closed an idle connection: then there is something to read, if only the end."""
    idle: Any = connection.dbapi_connection
    if idle.closed != 0:
        return True
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_deadline = threading.local()


def _wait(connection: psycopg2.extensions.connection) -> None:
    """Wait for the server, but not beyond the deadline of the call at hand.

    libpq has no read timeout: a server that is frozen, or a network that swallows packets, would hold a thread for
    good. psycopg2 lets a callback do the waiting, of all connections in the process; an error in it closes the
    connection.
    """
    end = getattr(_deadline, "at", None) or time.monotonic() + _OTHERS_SECONDS
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poll = select.poll()  # a new one: while connecting, libpq goes from one address, and socket, to the next
        writing = state == psycopg2.extensions.POLL_WRITE
        poll.register(connection.fileno(), select.POLLOUT if writing else select.POLLIN)
        remaining = end - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise psycopg2.OperationalError("no answer from PostgreSQL in time")


class _PoolCollector(Collector):
    """The pool's connections by state, read when Prometheus asks."""

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
