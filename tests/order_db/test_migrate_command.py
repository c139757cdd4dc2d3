import threading
import time

import psycopg2
import pytest

from tests.fixtures.database import APP_ROLES
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually


def test_without_a_server_it_says_so_within_the_deadline(database):
    began = time.monotonic()

    done = database.migrate("--wait", "1", DATABASE_PORT=str(free_port()))

    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: no connection to the database: ")
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_waits_for_a_server_that_comes_late(own_postgres):
    own_postgres.stop()
    results = []
    migrator = threading.Thread(target=lambda: results.append(own_postgres.database.migrate()))
    migrator.start()
    own_postgres.start()
    migrator.join()

    assert results[0].returncode == 0, results[0].stderr


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DATABASE_NAME": "nowhere"}, 'database "nowhere" does not exist'),
        ({"DATABASE_USER": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"DATABASE_PASSWORD_FILE": "/nonexistent"}, "cannot read the password in /nonexistent"),
        ({"ROLE_PASSWORDS_DIR": "/nonexistent"}, "cannot read the password in /nonexistent/orders_app"),
        ({"DATABASE_PASSWORD_FILE": "/dev/null"}, "the password in /dev/null is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_one_sentence_at_once(database, env, message):
    began = time.monotonic()

    done = database.migrate(**env)

    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_revision_is_named(database):
    done = database.migrate("downgrade", "9999")

    assert done.returncode == 1
    assert done.stderr == "migrate: Can't locate revision identified by '9999'\n"


def test_libpq_variables_stand_in_for_ours(database):
    ours = dict.fromkeys(database.env(), "")
    theirs = {
        "PGHOST": database.host,
        "PGPORT": str(database.port),
        "PGDATABASE": database.name,
        "PGUSER": "orders_user",
        "PGPASSFILE": "/dev/null",
        "PGPASSWORD": database.password_file().read_text(),
    }

    done = database.migrate(**ours, **theirs)

    assert done.returncode == 0, done.stderr


def test_a_changed_password_counts_from_the_next_run_on(own_postgres):
    database = own_postgres.database
    new = database.password_file("users_app")
    old = new.read_text()
    new.write_text("another one\n")

    assert database.migrate().returncode == 0

    database.connect("users_app", password="another one").close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        database.connect("users_app", password=old)


def test_no_password_reaches_the_log_of_a_server_that_logs_everything(own_postgres):
    database = own_postgres.database
    connection = database.connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET log_statement = 'all'")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()
    before = len(own_postgres.log.read_text())

    def logged():
        assert database.migrate().returncode == 0
        return "ALTER ROLE" in own_postgres.log.read_text()[before:]

    eventually(logged)

    log = own_postgres.log.read_text()
    for role in APP_ROLES:
        assert database.password_file(role).read_text() not in log


def test_it_awaits_the_newest_revision_that_somebody_else_brings(own_postgres):
    database = own_postgres.database
    assert database.migrate("downgrade", "-1").returncode == 0

    given_up = database.migrate("--wait", "1", "await")

    assert given_up.returncode == 1
    assert "nobody migrated it in time" in given_up.stderr

    results = []
    waiting = threading.Thread(target=lambda: results.append(database.migrate("--wait", "30", "await")))
    waiting.start()
    assert database.migrate().returncode == 0
    waiting.join()

    assert results[0].returncode == 0, results[0].stderr
    assert results[0].stdout.startswith("migrate: the database is at ")


def test_a_newer_revision_than_it_knows_is_not_awaited(own_postgres):
    own_postgres.database.run("UPDATE public.alembic_version SET version_num = 'newer'")

    done = own_postgres.database.migrate("--wait", "1", "await")

    assert (done.returncode, done.stdout) == (0, "migrate: the database is at newer\n"), done.stderr


def test_nothing_is_awaited_that_is_there(database):
    assert database.migrate("--wait", "5", "await").returncode == 0
