import concurrent.futures
import io
import time

import psycopg2
import psycopg2.extras
import pytest
from structlog.testing import capture_logs

from servicekit.config import DatabaseSettings
from servicekit.database.pool import Database
from servicekit.database.statistics import Statistics
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer
from tests.fixtures.services import eventually
from tests.servicekit.sample import sample_app

MISSED = "db_client_connection_timeouts_total"
STATEMENTS = "db_client_operation_duration_seconds_count"


@pytest.fixture
def connect():
    """A Database of servicekit on a database of the fixtures: `connect(database)`."""
    pools = []

    def make(database, metrics=None, **settings):
        env = {name.lower(): value for name, value in database.env("users_app").items()}
        where = DatabaseSettings(**{**env, **settings})
        pools.append(Database(where, "sample", metrics or Metrics(), Tracer(), peer="order-db"))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def start(serve, connect):
    """A service that asks its database: `start(database)` gives a client of it."""

    def client_of(where, **settings):
        metrics = Metrics()
        return serve(sample_app(metrics=metrics, database=connect(where, metrics, **settings)))

    return client_of


def _timed(call):
    started = time.monotonic()
    return call(), time.monotonic() - started


def _assert_database_unavailable(response):
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["type"] == "urn:sample:problem:dependency-unavailable"
    assert "order-db" in response.json()["detail"]


def test_a_new_connection_makes_no_statement_but_the_callers(connect, database, monkeypatch):
    said, real = io.StringIO(), psycopg2.connect

    def logged(**arguments):
        connection = real(connection_factory=psycopg2.extras.LoggingConnection, **arguments)
        connection.initialize(said)
        return connection

    monkeypatch.setattr(psycopg2, "connect", logged)
    connect(database).fetch_one("SELECT 1", "SELECT 1 AS one")
    assert said.getvalue().split("\n") == ["SELECT 1 AS one", ""]


def test_rows_are_read_by_name(connect, database):
    db = connect(database)
    assert db.fetch_one("SELECT n", "SELECT %(n)s AS n", {"n": 7}) == {"n": 7}
    assert db.fetch_one("SELECT none", "SELECT 1 WHERE false") is None
    assert db.fetch_all("SELECT n", "SELECT n FROM generate_series(1, 3) AS n") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_connection_says_whose_it_is_and_knows_the_deadline(connect, database):
    row = connect(database, database_timeout_seconds=2.5).fetch_one(
        "SELECT settings",
        "SELECT current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout",
    )
    assert row == {"name": "sample", "timeout": "2500ms"}


def test_a_refused_statement_is_the_callers_error_and_the_connection_lives(connect, database):
    db = connect(database, database_pool_size=1)
    before = db.fetch_one("SELECT pid", "SELECT pg_backend_pid() AS pid")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        db.fetch_one("SELECT 1/0", "SELECT 1/0")
    assert db.fetch_one("SELECT pid", "SELECT pg_backend_pid() AS pid") == before


def test_statements_are_measured_by_summary_and_outcome(start, database):
    client = start(database, database_timeout_seconds=1)
    client.get("/rows/0")
    client.get("/rows/8")
    assert client.metric(STATEMENTS, db_query_summary="SELECT pg_sleep", outcome="ok") == 1
    assert client.metric(STATEMENTS, db_query_summary="SELECT pg_sleep", outcome="error") == 1
    assert client.metric("db_client_connection_wait_time_seconds_count") >= 2
    assert client.metric("db_client_connection_max") == 10


def test_a_slow_statement_is_503_at_its_deadline_and_ends_on_the_server_too(start, database):
    response, seconds = _timed(lambda: start(database, database_timeout_seconds=0.3).get("/rows/8"))
    _assert_database_unavailable(response)
    assert seconds < 2
    running = "SELECT 1 FROM pg_stat_activity WHERE usename = 'users_app' AND state = 'active' AND datname = %s"
    assert eventually(lambda: not database.run(running, database.name))


def test_an_exhausted_pool_is_503_within_the_wait_limit_and_counted(start, database):
    client = start(database, database_pool_size=2, database_pool_wait_seconds=0.3)
    assert f"\n{MISSED} 0.0\n" in client.get("/metrics").text  # there from the start
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(client.get, "/rows/2.5") for _ in range(2)]
        eventually(lambda: client.metric("db_client_connection_count", db_client_connection_state="used") == 2)
        response, seconds = _timed(lambda: client.get("/rows/0"))
        assert client.get("/healthz").status_code == 200
        assert [one.result().status_code for one in slow] == [200, 200]
    _assert_database_unavailable(response)
    assert 0.25 < seconds < 2
    assert client.metric(MISSED) == 1
    assert client.metric("db_client_connection_count", db_client_connection_state="used") == 0
    assert client.get("/rows/0").status_code == 200


def test_the_pool_is_bounded_under_load(start, database):
    client = start(database, database_pool_size=3, database_pool_wait_seconds=10)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.get("/rows/0.01"), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["pid"] for answer in answers}) <= 3


def _at_once(client, count=4, seconds=0.3):
    """So many requests at the same time; the connections they used."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: client.get(f"/rows/{seconds}"), range(count)))
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["pid"] for answer in answers}


def test_connections_that_were_killed_while_idle_cost_no_request_an_error(start, database):
    client = start(database)
    pids = _at_once(client)
    assert len(pids) > 1
    ours = "SELECT pid FROM pg_stat_activity WHERE usename = 'users_app' AND datname = %s"
    database.run(f"SELECT pg_terminate_backend(pid) FROM ({ours}) AS ours", database.name)
    eventually(lambda: not database.run(ours, database.name))
    assert not pids & _at_once(client)


def test_a_server_that_was_restarted_meanwhile_costs_no_request_an_error(start, own_postgres):
    client = start(own_postgres.database)
    assert len(_at_once(client)) > 1
    own_postgres.stop()
    own_postgres.start()
    _at_once(client)
    assert client.get("/readyz").status_code == 200


def test_a_connection_that_is_killed_in_use_costs_its_request_a_503_and_no_other_anything(start, database):
    client = start(database, database_pool_size=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.get, "/rows/2.5")
        sleeping = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'SELECT pg_sleep%%'"
        ((pid,),) = eventually(lambda: database.run(sleeping, database.name))
        database.run("SELECT pg_terminate_backend(%s)", pid)
        _assert_database_unavailable(slow.result())
    assert client.get("/rows/0").status_code == 200


def test_a_stopped_server_is_503_quickly_and_comes_back_by_itself(start, own_postgres):
    client = start(own_postgres.database)
    assert client.get("/rows/0").status_code == client.get("/readyz").status_code == 200
    own_postgres.stop()
    with capture_logs() as events:
        answers = [_timed(lambda: client.get("/rows/0")) for _ in range(3)]
        for response, _ in answers:
            _assert_database_unavailable(response)
        _, quick, slowest = sorted(seconds for _, seconds in answers)
        assert quick < 0.5  # 1 s if a free connection were waited for
        assert slowest < 3
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
    assert not [event for event in events if event["event"] == "request.failed"]
    own_postgres.start()
    assert client.get("/rows/0").status_code == client.get("/readyz").status_code == 200


def test_a_frozen_server_is_503_within_the_deadline_and_comes_back_by_itself(start, own_postgres):
    """libpq has no read timeout: without one of our own, a thread a request would be lost for good."""
    client = start(own_postgres.database, database_timeout_seconds=1)
    assert client.get("/rows/0").status_code == 200
    own_postgres.pause()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: _timed(lambda: client.get(path)), ["/rows/0"] * 7 + ["/readyz"]))
    own_postgres.resume()
    # One deadline for all: 1 s, its grace of 0.5 s, and the second that a connection may be waited for.
    assert max(seconds for _, seconds in answers) < 2.5 + 1
    assert {response.status_code for response, _ in answers} == {503}
    assert eventually(lambda: client.get("/rows/0").status_code == 200)
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("change", [{"database_user": "nobody"}, {"database_name": "nowhere"}])
def test_a_database_that_lets_nobody_in_is_503(start, database, change):
    _assert_database_unavailable(start(database, **change).get("/rows/0"))


def test_a_changed_password_counts_from_the_next_connection_on(start, database, tmp_path):
    password = tmp_path / "password"
    client = start(database, database_password_file=password)
    with capture_logs() as events:
        _assert_database_unavailable(client.get("/rows/0"))
    assert {"event": "dependency.unavailable", "cause": "FileNotFoundError"}.items() <= events[0].items()
    password.write_text("wrong")
    _assert_database_unavailable(client.get("/rows/0"))
    password.write_text(database.password_file("users_app").read_text() + "\n")
    assert client.get("/rows/0").status_code == 200


def test_what_postgresql_counts_is_exposed_without_any_privilege(connect, database):
    database.run("INSERT INTO users.users (username, password_hash) VALUES ('counted', 'x')")
    metrics = Metrics()
    statistics = Statistics(connect(database, metrics), metrics.registry)
    statistics.ask()
    sample = metrics.registry.get_sample_value
    here = {"datname": database.name}
    [[rows]] = database.run("SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'users'")
    assert sample("pg_stat_user_tables_n_live_tup", {**here, "schemaname": "users", "relname": "users"}) <= rows
    assert sample("pg_stat_activity_count", {**here, "usename": "users_app"}) >= 1
    assert sample("pg_stat_database_numbackends", here) >= 1
    assert sample("pg_stat_database_xact_commit", here) > 0
    assert sample("pg_stat_database_blks_hit", here) > 0
    assert sample("pg_database_size_bytes", here) > 1_000_000
    assert sample("pg_settings_max_connections") >= 20
    assert sample("pg_wal_written_bytes", here) > 0


def test_a_session_without_a_role_is_no_role_s_connection(connect, database):
    # Autovacuum's workers have none, but come when they like. A session whose role was dropped looks the same.
    database.run("CREATE ROLE passing LOGIN PASSWORD 'passing'")
    where = {"host": database.host, "port": database.port, "dbname": database.name}
    session = psycopg2.connect(**where, user="passing", password="passing")
    database.run("DROP ROLE passing")
    assert database.run("SELECT 1 FROM pg_stat_activity WHERE datname = %s AND usename IS NULL", database.name)
    metrics = Metrics()
    statistics = Statistics(connect(database, metrics), metrics.registry)
    statistics.ask()
    session.close()
    roles = {
        sample.labels["usename"]
        for metric in metrics.registry.collect()
        if metric.name == "pg_stat_activity_count"
        for sample in metric.samples
    }
    assert "users_app" in roles
    assert roles <= {"users_app", "orders_user"}


def test_a_lock_that_is_waited_for_is_seen_by_a_role_that_has_no_part_in_it(connect, database):
    metrics = Metrics()
    statistics = Statistics(connect(database, metrics), metrics.registry)
    waits = "SELECT pg_advisory_lock(4711), pg_sleep(%s)"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(database.run, waits, 1.5) for _ in range(2)]

        def waiting():
            statistics.ask()
            return metrics.registry.get_sample_value("pg_locks_waiting", {"datname": database.name})

        eventually(lambda: waiting() == 1)
        for one in both:
            one.result()


def test_numbers_of_a_database_that_does_not_answer_cease(connect, database):
    now = 0.0
    metrics = Metrics()
    db = connect(database, metrics)
    statistics = Statistics(db, metrics.registry, clock=lambda: now)
    statistics.ask()
    assert metrics.registry.get_sample_value("pg_settings_max_connections") is not None
    now = 61.0
    assert metrics.registry.get_sample_value("pg_settings_max_connections") is None
    nowhere = Statistics(connect(database, database_port=1), Metrics().registry)
    nowhere.ask()
    assert list(nowhere.collect()) == []
