import psycopg2
import pytest
from psycopg2 import errors

from tests.fixtures.database import APP_ROLES, INIT_SQL, Database, Server, as_administrator

TABLES = {"orders_app": "orders.orders", "users_app": "users.users", "payments_app": "payments.payments"}
PAYMENT = (
    "INSERT INTO payments.payments (idempotency_key, order_id, amount_minor, currency, outcome)"
    " VALUES ('order-1', 1, {amount}, 'EUR', '{outcome}')"
)
INSERTS = {
    "orders_app": "INSERT INTO orders.orders (product, status) VALUES ('{}', 'PENDING')",
    "users_app": "INSERT INTO users.users (username, password_hash) VALUES ('ada', 'x')",
    "payments_app": PAYMENT.format(amount=100, outcome="PAID"),
}
FOREIGN = [(role, table) for role, own in TABLES.items() for table in TABLES.values() if table != own]


@pytest.fixture
def untouched(postgres):
    """The migrated database itself, for statements that are refused."""
    return postgres.database


@pytest.mark.parametrize("role", APP_ROLES)
def test_a_role_reads_and_adds_its_own_rows(database, role):
    database.run(INSERTS[role], role=role)
    assert len(database.run(f"SELECT * FROM {TABLES[role]}", role=role)) == 1


def test_orders_change_and_are_locked_while_they_do(database):
    database.run(INSERTS["orders_app"], role="orders_app")
    database.run("UPDATE orders.orders SET status = 'PAID'", role="orders_app")
    assert len(database.run("SELECT * FROM orders.orders FOR UPDATE SKIP LOCKED", role="orders_app")) == 1


@pytest.mark.parametrize("role", ["users_app", "payments_app"])
def test_users_and_payments_never_change(untouched, role):
    with pytest.raises(errors.InsufficientPrivilege):
        untouched.run(f"UPDATE {TABLES[role]} SET created_at = now()", role=role)


@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {}", "ALTER TABLE {} ADD x INT", "DROP TABLE {}"])
@pytest.mark.parametrize("role", APP_ROLES)
def test_a_role_removes_and_alters_nothing(untouched, role, statement):
    with pytest.raises(errors.InsufficientPrivilege):
        untouched.run(statement.format(TABLES[role]), role=role)


@pytest.mark.parametrize("statement", ["SELECT * FROM {}", "DELETE FROM {}", "UPDATE {} SET id = 1"])
@pytest.mark.parametrize(("role", "table"), FOREIGN)
def test_a_role_is_refused_in_the_other_schemas(untouched, role, table, statement):
    with pytest.raises(errors.InsufficientPrivilege):
        untouched.run(statement.format(table), role=role)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM public.alembic_version",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        *(f"CREATE TABLE {schema}.mine (id INT)" for schema in ("public", "orders", "users", "payments")),
    ],
)
@pytest.mark.parametrize("role", APP_ROLES)
def test_a_role_creates_nothing(untouched, role, statement):
    with pytest.raises(errors.InsufficientPrivilege):
        untouched.run(statement, role=role)


def test_rights_on_the_database_are_for_the_services_roles_only(untouched):
    rights = (
        "SELECT rolname, has_database_privilege(rolname, current_database(), 'CONNECT'),"
        " has_database_privilege(rolname, current_database(), 'TEMPORARY')"
        " FROM pg_roles WHERE rolname = ANY(%s)"
    )

    found = untouched.run(rights, [*APP_ROLES, "pg_monitor"])

    assert set(found) == {*((role, True, False) for role in APP_ROLES), ("pg_monitor", False, False)}


@pytest.mark.parametrize("role", ["orders_user", *APP_ROLES])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_gets_in_without_the_password(untouched, role, password):
    with pytest.raises(psycopg2.OperationalError, match=r"no password supplied|password authentication failed"):
        untouched.connect(role, password=password)


def test_passwords_are_kept_as_scram(untouched):
    kept = dict(untouched.run("SELECT rolname, left(rolpassword, 14) FROM pg_authid WHERE rolcanlogin"))

    assert kept == dict.fromkeys(["orders_user", *APP_ROLES], "SCRAM-SHA-256$")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders.orders (product, status, quantity) VALUES ('{}', 'PENDING', 0)",
        "INSERT INTO orders.orders (product, status, quantity) VALUES ('{}', 'PENDING', 101)",
        "INSERT INTO users.users (username, password_hash, role) VALUES ('ada', 'x', 'root')",
        PAYMENT.format(amount=-1, outcome="PAID"),
        PAYMENT.format(amount=1, outcome="PERHAPS"),
    ],
)
def test_values_out_of_range_are_refused(untouched, statement):
    with pytest.raises(errors.CheckViolation):
        untouched.run(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders.orders (product, status, user_id, idempotency_key) VALUES ('1', '', 1, 'k')",
        INSERTS["users_app"],
        INSERTS["payments_app"],
    ],
    ids=["orders", "users", "payments"],
)
def test_the_same_key_a_second_time_is_refused(database, statement):
    database.run(statement)
    with pytest.raises(errors.UniqueViolation):
        database.run(statement)


def test_a_username_is_taken_in_every_spelling(database):
    database.run("INSERT INTO users.users (username, password_hash) VALUES ('Ada', 'x')")
    with pytest.raises(errors.UniqueViolation):
        database.run("INSERT INTO users.users (username, password_hash) VALUES ('aDA', 'x')")


def test_the_migrations_need_no_superuser_but_an_owner_who_may_make_roles(tmp_path):
    # As an operator or a cloud makes a database: deploy/kubernetes/examples/cloudnative-pg.yaml.
    server = Server(tmp_path)
    server.initialise()
    try:
        server.start()
        (server.secrets / "owner").write_text("owner-password")
        as_administrator(server, "CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'owner-password'")
        as_administrator(server, "CREATE DATABASE owned OWNER owner")
        owned = Database(server, "owned")
        owned.run(INIT_SQL.read_text(), role="owner")
        owner = {"DATABASE_USER": "owner", "DATABASE_PASSWORD_FILE": str(server.secrets / "owner")}

        done = owned.migrate(**owner)

        assert done.returncode == 0, done.stderr
        assert owned.migrate(**owner).stdout.startswith("migrate: already at ")
        for role, statement in INSERTS.items():
            owned.run(statement, role=role)
    finally:
        server.stop()
