"""PostgreSQL, as the services see it, and what it counts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.grafana.board import board, choice_of_duration
from observability.grafana.panels import found_traces, graph, note, stack, to_its_service
from observability.grafana.queries import RATE, Search, promql, quantile, share

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_STATEMENTS = "db_client_operation_duration_seconds"
_REAL = 'db_query_summary!="SELECT 1"'  # that is how a service asks whether the database is there

_NOT_HERE = """\
The first two rows are measured **by the services**, at their end of the connection; the third is what PostgreSQL
counts, asked by order-service every 5 s. So it ceases when order-service is down. Who holds a lock, and how long
transactions last, a service's role may not see.

To ask PostgreSQL itself: `make psql`, in Docker Compose `docker exec -it order-db psql -U orders_user -d orders_user`;
then for example

    SELECT pid, usename, state, wait_event_type, wait_event, now() - query_start AS since, left(query, 60)
    FROM pg_stat_activity WHERE datname = current_database();
"""


def build() -> Dashboard:
    """Make the dashboard."""
    return board(
        "database",
        "Is the database what everybody waits for, and with which statement?",
        {
            "Connections": [
                to_its_service(
                    graph(
                        "Pool in use",
                        "Does a service run out of connections? At 100 % the next request waits, at most 1 s.",
                        promql(
                            'max by (job) (db_client_connection_count{db_client_connection_state="used"}'
                            " / ignoring (db_client_connection_state) db_client_connection_max)",
                            "{{job}}",
                        ),
                        unit="percentunit",
                        steps=(0.7, 0.9),
                    )
                ),
                stack(
                    "Connections",
                    "How many does each service hold, and do they work?",
                    promql(
                        "sum by (job, db_client_connection_state) (db_client_connection_count)",
                        "{{job}} {{db_client_connection_state}}",
                    ),
                    unit="short",
                ),
                to_its_service(
                    graph(
                        "Wait for a connection, p99",
                        "Do requests queue before the database? A point is a trace: open it.",
                        promql(
                            quantile(0.99, "db_client_connection_wait_time_seconds", "job"), "{{job}}", exemplars=True
                        ),
                        unit="s",
                        steps=(0.1, 1),
                    )
                ),
                to_its_service(
                    graph(
                        "Requests that got no connection",
                        "Who waited in vain, and got a 503?",
                        promql(f"sum by (job) (rate(db_client_connection_timeouts_total[{RATE}]))", "{{job}}"),
                        unit="reqps",
                    )
                ),
            ],
            "Statements": [
                graph(
                    "Statements",
                    "What is asked how often? The names are those of the spans.",
                    promql(
                        f"sum by (db_query_summary) (rate({_STATEMENTS}_count{{{_REAL}}}[{RATE}]))",
                        "{{db_query_summary}}",
                    ),
                    unit="suffix:statements/s",
                ),
                graph(
                    "Time of a statement, p99",
                    "Which statement is slow? The wait for a connection is not in it. A point is a trace: open it.",
                    promql(
                        quantile(0.99, _STATEMENTS, "db_query_summary", _REAL), "{{db_query_summary}}", exemplars=True
                    ),
                    unit="s",
                    steps=(0.1, 1),
                ),
                to_its_service(
                    graph(
                        "Commits",
                        "How much is written? Each INSERT and UPDATE is a transaction of its own.",
                        promql(
                            f'sum by (job) (rate({_STATEMENTS}_count{{db_query_summary=~"(INSERT|UPDATE) .+",'
                            f' outcome="ok"}}[{RATE}]))',
                            "{{job}}",
                        ),
                        unit="suffix:commits/s",
                    )
                ),
                to_its_service(
                    graph(
                        "Failed statements",
                        "What share of the statements is refused, or not answered?",
                        promql(
                            share(
                                f'rate({_STATEMENTS}_count{{outcome="error"}}[{RATE}])',
                                f"rate({_STATEMENTS}_count[{RATE}])",
                                by="job",
                            ),
                            "{{job}}",
                        ),
                        unit="percentunit",
                        steps=(0.001, 0.01),
                    )
                ),
            ],
            "PostgreSQL itself": [
                graph(
                    "Connections of the server",
                    "Who holds its connections, and how near is the limit? Beyond it nobody gets in, us included.",
                    promql("max by (usename) (pg_stat_activity_count)", "{{usename}}"),
                    promql("max(pg_settings_max_connections)", "limit"),
                    unit="short",
                ),
                graph(
                    "Transactions",
                    "Is work undone? Nearly every statement here is a transaction of its own, so rollbacks are rare.",
                    promql(f"max(rate(pg_stat_database_xact_commit[{RATE}]))", "commits"),
                    promql(f"max(rate(pg_stat_database_xact_rollback[{RATE}]))", "rollbacks"),
                    unit="suffix:transactions/s",
                ),
                graph(
                    "Locks",
                    "Does one statement wait for another's row or table? A deadlock ends one of both with an error.",
                    promql("max(pg_locks_waiting)", "waiting"),
                    promql(f"max(increase(pg_stat_database_deadlocks[{RATE}]))", "deadlocks"),
                    unit="short",
                ),
                graph(
                    "Blocks found in the cache",
                    "Does the data in use still fit into memory? Others come from the system's cache, or the disk.",
                    promql(
                        f"max(rate(pg_stat_database_blks_hit[{RATE}])) / (max(rate(pg_stat_database_blks_hit[{RATE}]))"
                        f" + max(rate(pg_stat_database_blks_read[{RATE}])))",
                        "from the cache",
                    ),
                    unit="percentunit",
                ),
                graph(
                    "Dead rows",
                    "Does vacuum keep up? Each UPDATE leaves one; many make scans slow and the table large.",
                    promql(
                        "max by (relname) (pg_stat_user_tables_n_dead_tup)"
                        " / (max by (relname) (pg_stat_user_tables_n_live_tup) + 1)",
                        "{{relname}}",
                    ),
                    unit="percentunit",
                ),
                graph(
                    "Scans of a whole table",
                    "Is an index missing? On a large table each of these is slow.",
                    promql(f"max by (relname) (rate(pg_stat_user_tables_seq_scan[{RATE}]))", "{{relname}}"),
                    unit="suffix:scans/s",
                ),
                graph(
                    "Size",
                    "How fast does the disk fill?",
                    promql("max(pg_database_size_bytes)", "database"),
                    unit="bytes",
                ),
                graph(
                    "Write-ahead log",
                    "How much is written to be safe?",
                    promql(f"max(rate(pg_wal_written_bytes[{RATE}]))", "written"),
                    unit="Bps",
                ),
            ],
            "Traces, and what is not here": [
                found_traces(
                    "Slowest traces with an order's INSERT",
                    "What did the slowest of the newest ones wait for?",
                    Search("order-service", "INSERT orders", "$slower_than"),
                ),
                note("What PostgreSQL itself would say", _NOT_HERE),
            ],
        },
        variables=[choice_of_duration],
    )
