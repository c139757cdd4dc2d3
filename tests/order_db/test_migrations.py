import subprocess
import sys
import threading
import time

import psycopg2.errors
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extras import Json

from local import postgres as local_postgres
from tests.fixtures.database import APP_ROLES, MAIN, MIGRATE, Database, Server, as_administrator

REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(Config(MIGRATE.with_name("alembic.ini"))).walk_revisions()))
]
STEPS = ["base", *REVISIONS]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of which nothing but the init SQL is known."""
    server = Server(tmp_path_factory.mktemp("unmigrated"))
    server.initialise()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def baseline(server):
    """The database as the init SQL leaves it, and the cluster without the services' roles."""
    fresh = Database(server, "baseline")
    as_administrator(server, f"CREATE DATABASE {fresh.name} TEMPLATE {MAIN}")
    yield fresh
    as_administrator(server, f"DROP DATABASE {fresh.name} WITH (FORCE)")
    for role in APP_ROLES:
        as_administrator(server, f"DROP ROLE IF EXISTS {role}")


def dump(database):
    """The whole schema with every privilege, and the roles."""
    program = local_postgres.binaries() / "pg_dump"
    options = ("--schema-only", "--create", "--exclude-table=public.alembic_version", "--restrict-key=x")
    env = local_postgres.client_env(database.port, database.password_file())
    done = subprocess.run([program, *options, database.name], env=env, capture_output=True, text=True, check=True)
    return done.stdout, database.run("SELECT rolname FROM pg_roles ORDER BY 1")


def revision(database):
    return database.run("SELECT version_num FROM public.alembic_version")


def succeed(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_revision_goes_down_and_up_again_without_a_trace(baseline):
    at = {"base": dump(baseline)}
    succeed(baseline.migrate())
    at[REVISIONS[-1]] = dump(baseline)

    for older in reversed(STEPS[:-1]):  # one step at a time, down to the init SQL
        succeed(baseline.migrate("downgrade", "-1"))
        assert revision(baseline) == ([] if older == "base" else [(older,)])
        if older == "base":
            assert dump(baseline) == at[older]
        else:
            at[older] = dump(baseline)

    for older in STEPS[:-1]:  # up from each, and down again in one go
        succeed(baseline.migrate())
        assert dump(baseline) == at[REVISIONS[-1]]
        succeed(baseline.migrate("downgrade", older))
        assert dump(baseline) == at[older]

    assert len(set(map(str, at.values()))) == len(STEPS)


def test_orders_of_the_baseline_survive_up_and_down(baseline):
    odd = [
        ({"name": "Kettle", "id": 7}, "PENDING"),
        ([], "shipped to the moon"),
        ("a string", ""),
        (None, "x" * 50),
    ]
    for product, status in odd:
        baseline.run("INSERT INTO orders.orders (product, status) VALUES (%s, %s)", Json(product), status)
    baseline.run("INSERT INTO orders.orders VALUES (2147483647, '{}', 'last id', NULL)")
    columns = "SELECT id, product, status, created_at FROM orders.orders ORDER BY id"
    before = baseline.run(columns)

    succeed(baseline.migrate())
    assert baseline.run(columns) == before
    added = "SELECT DISTINCT user_id, quantity, idempotency_key, payment_id FROM orders.orders"
    assert baseline.run(added) == [(None, 1, None, None)]

    succeed(baseline.migrate("downgrade", "base"))
    assert baseline.run(columns) == before
    assert len(baseline.run("SELECT * FROM orders.orders")[0]) == 4


def test_the_reconciler_may_take_new_orders_but_none_from_before_there_were_payments(baseline):
    insert = "INSERT INTO orders.orders (product, status) VALUES ('{}', 'PENDING') RETURNING id"
    baseline.run(insert)
    succeed(baseline.migrate())
    [(new,)] = baseline.run(insert)

    due = baseline.run("SELECT id FROM orders.orders WHERE charge_after <= now()")

    assert due == [(new,)]


def test_a_login_that_was_closed_stays_so_in_the_code_before(baseline):
    """It knows no closed logins, and would compare the password."""
    succeed(baseline.migrate())
    baseline.run("INSERT INTO users.users (username, password_hash) VALUES ('shut', 'hash'), ('open', 'hash')")
    baseline.run("UPDATE users.users SET closed_at = now() WHERE username = 'shut'", role="users_app")
    for column in ("role = 'admin'", "password_hash = 'x'", "username = 'x'"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            baseline.run(f"UPDATE users.users SET {column}", role="users_app")

    succeed(baseline.migrate("downgrade", "0005"))
    hashes = "SELECT username, password_hash FROM users.users ORDER BY id"
    assert baseline.run(hashes) == [("shut", "-"), ("open", "hash")]

    succeed(baseline.migrate())
    assert baseline.run("SELECT DISTINCT closed_at FROM users.users") == [(None,)]


def test_a_second_run_is_a_no_op(baseline):
    assert succeed(baseline.migrate()) == f"migrate: from base to {REVISIONS[-1]}\n"
    first = dump(baseline)

    assert succeed(baseline.migrate()) == f"migrate: already at {REVISIONS[-1]}\n"

    assert dump(baseline) == first


def test_of_two_migrators_at_once_one_migrates_and_the_other_finds_it_done(baseline):
    results = []
    threads = [threading.Thread(target=lambda: results.append(baseline.migrate())) for _ in range(2)]
    # Both have to be waiting for the lock before either may go on.
    holder = baseline.connect()
    with holder, holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(5433)")
        for thread in threads:
            thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while baseline.run(waiting) != [(2,)]:
            assert all(thread.is_alive() for thread in threads), results
    for thread in threads:
        thread.join()
    holder.close()

    assert sorted(succeed(done) for done in results) == [
        f"migrate: already at {REVISIONS[-1]}\n",
        f"migrate: from base to {REVISIONS[-1]}\n",
    ]


def test_a_role_that_is_already_there_is_taken_over(baseline):
    baseline.run("CREATE ROLE orders_app LOGIN")

    succeed(baseline.migrate())

    assert baseline.run("SELECT 1 FROM orders.orders", role="orders_app") == []


def test_a_role_that_another_database_needs_outlives_the_downgrade(baseline):
    succeed(baseline.migrate())
    other = Database(baseline.server, "other")
    as_administrator(baseline.server, f"CREATE DATABASE {other.name} TEMPLATE {baseline.name}")
    try:
        succeed(other.migrate())

        done = baseline.migrate("downgrade", "base")

        succeed(done)
        assert "role orders_app is still in use and is kept" in done.stderr
        assert other.run("SELECT 1 FROM orders.orders", role="orders_app") == []
        succeed(other.migrate("downgrade", "base"))
        assert other.run("SELECT 1 FROM pg_roles WHERE rolname = ANY(%s)", list(APP_ROLES)) == []
    finally:
        as_administrator(baseline.server, f"DROP DATABASE {other.name} WITH (FORCE)")


def test_a_migration_that_fails_leaves_nothing_behind(baseline):
    baseline.run("CREATE SCHEMA payments")  # revision 0004 wants to make it
    before = dump(baseline)

    done = baseline.migrate()

    assert done.returncode == 1
    assert done.stderr == ('migrate: the database refused, and is unchanged: schema "payments" already exists\n')
    assert dump(baseline) == before


def test_a_migration_gives_up_on_a_table_that_somebody_holds(baseline):
    holder = baseline.connect()
    with holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE orders.orders IN ACCESS SHARE MODE")

        began = time.monotonic()
        done = baseline.migrate()
        assert time.monotonic() - began < 30

    holder.close()
    assert done.returncode == 1
    assert "canceling statement due to lock timeout" in done.stderr
    assert "Traceback" not in done.stderr


def test_alembic_by_itself_points_to_migrate():
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", MIGRATE.with_name("alembic.ini"), "upgrade", "head"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Run order-db-services/migrate.py instead")
