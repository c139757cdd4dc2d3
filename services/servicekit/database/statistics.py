"""Exports PostgreSQL's own statistics, as far as a service's role may read them without further privileges.

The names are those of prometheus-community's postgres_exporter, so its dashboards and rules work. That exporter has
many more metrics, and its role has `pg_monitor`, so it sees the duration of other roles' transactions. If you run it,
you do not need this module.
"""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from servicekit.database.pool import Database, Row
from servicekit.process.background import Periodic
from servicekit.web.errors import DependencyUnavailable

INTERVAL_SECONDS = 5.0
_KEPT_SECONDS = 60.0  # after a failure; older numbers would make the database look idle

_DATABASE = """
SELECT current_database() AS datname, d.numbackends, d.xact_commit, d.xact_rollback, d.blks_hit, d.blks_read,
       d.tup_returned, d.tup_fetched, d.tup_inserted, d.tup_updated, d.tup_deleted, d.deadlocks, d.temp_bytes,
       pg_database_size(d.datid) AS size_bytes,
       current_setting('max_connections')::int AS max_connections,
       (SELECT count(*) FROM pg_locks WHERE NOT granted) AS locks_waiting,
       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS wal_bytes
FROM pg_stat_database d WHERE d.datname = current_database()
"""
# Autovacuum's workers have no role. Their backend_type is hidden from a role without pg_monitor; that they have no name
# is not.
_CONNECTIONS = """
SELECT current_database() AS datname, usename, count(*) AS count
FROM pg_stat_activity WHERE datname = current_database() AND usename IS NOT NULL GROUP BY usename
"""
_TABLES = """
SELECT current_database() AS datname, schemaname, relname, n_live_tup, n_dead_tup, seq_scan, idx_scan,
       autovacuum_count
FROM pg_stat_user_tables
"""

_OF_DATABASE = {
    "numbackends": ("pg_stat_database_numbackends", "Connections to this database."),
    "xact_commit": ("pg_stat_database_xact_commit", "Transactions committed, since the statistics were reset."),
    "xact_rollback": ("pg_stat_database_xact_rollback", "Transactions rolled back."),
    "blks_hit": ("pg_stat_database_blks_hit", "Blocks that were found in PostgreSQL's own cache."),
    "blks_read": ("pg_stat_database_blks_read", "Blocks that were not, and were read."),
    "tup_returned": ("pg_stat_database_tup_returned", "Rows read by scans."),
    "tup_fetched": ("pg_stat_database_tup_fetched", "Rows fetched by index scans."),
    "tup_inserted": ("pg_stat_database_tup_inserted", "Rows inserted."),
    "tup_updated": ("pg_stat_database_tup_updated", "Rows updated."),
    "tup_deleted": ("pg_stat_database_tup_deleted", "Rows deleted."),
    "deadlocks": ("pg_stat_database_deadlocks", "Deadlocks detected."),
    "temp_bytes": ("pg_stat_database_temp_bytes", "Bytes that queries wrote to temporary files."),
    "size_bytes": ("pg_database_size_bytes", "Disk space of the database."),
    "locks_waiting": ("pg_locks_waiting", "Locks that somebody waits for. Not in postgres_exporter."),
    "wal_bytes": ("pg_wal_written_bytes", "Bytes of the write-ahead log so far. Not in postgres_exporter."),
}
_OF_SERVER = {"max_connections": ("pg_settings_max_connections", "Connections that the server allows.")}
_OF_ROLE = {"count": ("pg_stat_activity_count", "Connections by role.")}
_OF_TABLE = {
    "n_live_tup": ("pg_stat_user_tables_n_live_tup", "Rows, estimated."),
    "n_dead_tup": ("pg_stat_user_tables_n_dead_tup", "Rows that vacuum has yet to remove, estimated."),
    "seq_scan": ("pg_stat_user_tables_seq_scan", "Scans of the whole table."),
    "idx_scan": ("pg_stat_user_tables_idx_scan", "Scans of an index."),
    "autovacuum_count": ("pg_stat_user_tables_autovacuum_count", "Times that autovacuum has cleaned it."),
}


class Statistics(Collector):
    """Queries PostgreSQL's statistics periodically, and exports the last result.

    All replicas of a service export the same numbers, so aggregate them with `max`. Counters have the names of
    postgres_exporter, without `_total`.

    Args:
        database: The database.
        registry: Where the metrics are registered.
        clock: Seconds, for tests.
    """

    def __init__(
        self, database: Database, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._rows: list[tuple[dict[str, tuple[str, str]], tuple[str, ...], list[Row]]] = []
        self._asked_at = float("-inf")
        registry.register(self)

    def task(self) -> Periodic:
        """Return the background task that runs the queries."""
        return Periodic("postgresql-statistics", INTERVAL_SECONDS, lambda _stopping: self.ask())

    def ask(self) -> None:
        """Run the queries now. If the database does not answer, the metrics disappear; other signals report it."""
        try:
            ask = self._database.fetch_all
            [whole] = ask("SELECT pg_stat_database", _DATABASE)
            self._rows = [
                (_OF_DATABASE, ("datname",), [whole]),
                (_OF_SERVER, (), [whole]),
                (_OF_ROLE, ("datname", "usename"), ask("SELECT pg_stat_activity", _CONNECTIONS)),
                (_OF_TABLE, ("datname", "schemaname", "relname"), ask("SELECT pg_stat_user_tables", _TABLES)),
            ]
        except DependencyUnavailable:
            return
        self._asked_at = self._clock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client."""
        if self._clock() - self._asked_at > _KEPT_SECONDS:
            return
        for metrics, labels, rows in self._rows:
            for column, (name, says) in metrics.items():
                family = GaugeMetricFamily(name, says, labels=labels)
                for row in rows:
                    if row[column] is not None:
                        family.add_metric([str(row[label]) for label in labels], float(row[column]))
                yield family
