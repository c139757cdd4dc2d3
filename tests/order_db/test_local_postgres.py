import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from local import postgres as local_postgres
from local.errors import LocalError
from local.processes import child
from tests.fixtures.database import INIT_SQL, Server
from tests.fixtures.services import eventually

DOCUMENTED = """
            Table "orders.orders"
   Column   |            Type             | Collation | Nullable |                  Default
------------+-----------------------------+-----------+----------+-------------------------------------------
 id         | integer                     |           | not null | nextval('orders.orders_id_seq'::regclass)
 product    | jsonb                       |           | not null |
 status     | character varying(50)       |           | not null |
 created_at | timestamp without time zone |           |          | CURRENT_TIMESTAMP
Indexes:
    "orders_pkey" PRIMARY KEY, btree (id)
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A server that was never started, to be copied."""
    server = Server(tmp_path_factory.mktemp("pristine"))
    server.initialise()
    return server


@pytest.fixture
def server(pristine, tmp_path):
    server = Server(tmp_path / "server")
    shutil.copytree(pristine.folder, server.folder)
    yield server
    server.stop()


def initialise(server):
    local_postgres.initialise(server.data, server.secrets / "orders_user", INIT_SQL)


def test_the_init_sql_makes_the_documented_table(server):
    server.start()
    done = subprocess.run(
        [local_postgres.binaries() / "psql", "--no-psqlrc", "--command", r"\d orders.orders"],
        env=local_postgres.client_env(server.port, server.secrets / "orders_user"),
        capture_output=True,
        text=True,
        check=True,
    )

    words = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert words == [line.split() for line in DOCUMENTED.splitlines() if line.strip()]


def test_the_server_is_in_utc_speaks_utf8_is_durable_and_local(server):
    server.start()
    names = ("TimeZone", "log_timezone", "server_encoding", "password_encryption", "listen_addresses")
    found = [server.database.run(f"SHOW {name}")[0][0] for name in names]

    assert found == ["UTC", "UTC", "UTF8", "scram-sha-256", "127.0.0.1"]
    assert not any("fsync" in argument for argument in local_postgres.command(server.data, server.port))


def test_a_failed_statement_stays_out_of_the_log(server):
    server.start()
    server.database.run("CREATE TABLE canary (name TEXT PRIMARY KEY)")
    server.database.run("INSERT INTO canary VALUES ('canary-value')")

    with pytest.raises(Exception, match="canary-value"):
        server.database.run("INSERT INTO canary VALUES ('canary-value')")

    log = server.log.read_text()
    assert "duplicate key value" in log
    assert "canary-value" not in log


def test_a_second_initialise_keeps_the_rows(server):
    server.start()
    server.database.run("INSERT INTO orders.orders (product, status) VALUES ('{}', 'PENDING')")
    server.stop()

    initialise(server)
    server.start()

    assert server.database.run("SELECT count(*) FROM orders.orders") == [(1,)]


@pytest.mark.parametrize("wait_for", ["PG_VERSION", "global/pg_control", "postmaster.pid"])
def test_an_interrupted_initialise_is_redone(tmp_path, pristine, wait_for):
    server = Server(tmp_path)
    shutil.copytree(pristine.secrets, server.secrets)
    arguments = [str(server.data), str(server.secrets / "orders_user"), str(INIT_SQL)]
    code = """
import sys
from pathlib import Path
from local.postgres import initialise

initialise(*map(Path, sys.argv[1:]))
"""
    with child([sys.executable, "-c", code, *arguments], cwd=INIT_SQL.parents[2]) as making:
        try:
            eventually(lambda: list(tmp_path.glob(f"data.partial-*/{wait_for}")))
        finally:
            making.kill()
    assert not server.data.exists()

    initialise(server)

    server.start()
    try:
        assert server.database.run("SELECT * FROM orders.orders") == []
    finally:
        server.stop()


def test_an_error_in_the_init_sql_leaves_no_data_folder(tmp_path, pristine):
    broken = tmp_path / "broken.sql"
    broken.write_text("CREATE SCHEMA orders;\n\nCREATE TABLE nowhere.orders ();\n")

    with pytest.raises(LocalError, match='schema "nowhere" does not exist'):
        local_postgres.initialise(tmp_path / "data", pristine.secrets / "orders_user", broken)

    assert not (tmp_path / "data").exists()


def test_a_program_that_hangs_is_ended(tmp_path, pristine, monkeypatch):
    monkeypatch.setattr(local_postgres, "_RUN_SECONDS", 0.01)

    with pytest.raises(LocalError, match=r"initdb did not end within 0\.01 s"):
        local_postgres.initialise(tmp_path / "data", pristine.secrets / "orders_user", INIT_SQL)

    assert not (tmp_path / "data").exists()


def test_data_of_another_major_version_is_left_alone(server):
    (server.data / "PG_VERSION").write_text("15\n")

    with pytest.raises(LocalError, match=r"made by PostgreSQL 15 and this is 16: .*`make reset`"):
        initialise(server)


def test_a_folder_with_something_else_in_it_is_left_alone(server):
    (server.data / "PG_VERSION").unlink()

    with pytest.raises(LocalError, match=r"no PostgreSQL data folder: .*`make reset`"):
        initialise(server)


def test_an_empty_folder_is_no_hindrance(tmp_path, pristine):
    (tmp_path / "data").mkdir()

    local_postgres.initialise(tmp_path / "data", pristine.secrets / "orders_user", INIT_SQL)

    assert (tmp_path / "data" / "PG_VERSION").exists()


def test_a_killed_server_starts_again_with_its_rows(server):
    server.start()
    server.database.run("INSERT INTO orders.orders (product, status) VALUES ('{}', 'PENDING')")
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait(10)
    psutil.wait_procs(children, 10)
    assert (server.data / "postmaster.pid").exists()

    server.start()

    assert server.database.run("SELECT count(*) FROM orders.orders") == [(1,)]


def test_the_lock_of_a_killed_server_whose_pid_is_somebody_elses_now_is_removed(server):
    with child(["sleep", "60"]) as other:
        try:
            (server.data / "postmaster.pid").write_text(f"{other.pid}\n{server.data}\n")

            initialise(server)
            server.start()
        finally:
            other.kill()


def test_the_lock_of_a_running_server_stays(server):
    server.start()

    initialise(server)

    assert (server.data / "postmaster.pid").exists()


def test_the_server_ends_with_its_parent(server, tmp_path):
    code = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)"
    command = local_postgres.command(server.data, server.port)
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=log, text=True)
    postmaster = psutil.Process(int(parent.stdout.readline()))
    eventually(lambda: b"ready to accept" in (tmp_path / "log").read_bytes())
    connection = server.database.connect()  # a client does not hold it up
    family = [postmaster, *postmaster.children(recursive=True)]

    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()

    assert psutil.wait_procs(family, 10)[1] == []
    connection.close()
    assert b"database system is shut down" in (tmp_path / "log").read_bytes()


def test_as_root_without_user_namespaces_it_says_what_to_do(server, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nonexistent")
    local_postgres._no_root.cache_clear()

    with pytest.raises(LocalError, match="run it as an ordinary user"):
        local_postgres.command(server.data, server.port)

    local_postgres._no_root.cache_clear()
