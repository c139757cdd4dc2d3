"""Bring the order database to a revision, and give the services' roles their passwords.

Safe to run twice, and by two at once: all of it is one transaction under one lock.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

ROLES = ("orders_app", "users_app", "payments_app")

HELP = """\
environment:
  DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, DATABASE_USER
                          where the database is; libpq's PGHOST, ... count where these are not set
  DATABASE_PASSWORD_FILE  file whose first line is the password of DATABASE_USER
  ROLE_PASSWORDS_DIR      folder with the files orders_app, users_app, payments_app: after an upgrade to
                          the newest revision each role gets the password in its file
"""


class MigrationError(Exception):
    """One sentence that says why the database was left as it was."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; the process's own by default.

    Returns:
        The exit status: 0 when the database is at the revision, 1 when it was left as it was.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wait", type=float, default=30, help="seconds to wait for the server (default 30)")
    actions = parser.add_subparsers(dest="action", metavar="upgrade | downgrade REVISION | await (default: upgrade)")
    actions.add_parser("upgrade", help="to the newest revision")
    actions.add_parser("await", help="wait until somebody else has brought it there, or further")
    actions.add_parser("downgrade", help="to an older one").add_argument(
        "revision", metavar="REVISION", help="'base', a revision like '0002', or '-1' for one step"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="migrate: %(message)s")
    logging.getLogger("sqlalchemy.dialects.postgresql").setLevel(logging.INFO)  # the migrations' notices
    downgrade_to = arguments.revision if arguments.action == "downgrade" else None
    try:
        if arguments.action == "await":
            print(f"migrate: the database is at {await_newest(arguments.wait)}")
            return 0
        before, after = migrate(downgrade_to, arguments.wait)
    except (MigrationError, CommandError) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    except DBAPIError as error:
        print(f"migrate: the database refused, and is unchanged: {str(error.orig).strip()}", file=sys.stderr)
        return 1
    print(f"migrate: already at {after}" if before == after else f"migrate: from {before} to {after}")
    return 0


def migrate(downgrade_to: str | None, wait: float) -> tuple[str, str]:
    """Migrate the database that the environment names, in one transaction.

    Args:
        downgrade_to: An older revision; None upgrades to the newest and sets the roles' passwords.
        wait: How many seconds to wait for the server.

    Returns:
        The revisions before and after, "base" for none.

    Raises:
        MigrationError: A password is missing, or there is no server.
        CommandError: There is no such revision.
        DBAPIError: The database refused.
    """
    config = Config(Path(__file__).with_name("alembic.ini"))
    settings = connection_settings()
    passwords = {} if downgrade_to else role_passwords()
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(settings, wait), poolclass=NullPool)
    with engine.begin() as connection:
        # Two migrators at once: the second waits until the first has committed, then finds nothing to do.
        # The number is arbitrary; it only has to stay the same.
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(5433)"))
        # Everyone who comes after a migration that waits for a table waits behind it: rather give up soon.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        config.attributes["connection"] = connection
        versions = MigrationContext.configure(connection, opts={"version_table_schema": "public"})
        before = versions.get_current_revision() or "base"
        if downgrade_to:
            command.downgrade(config, downgrade_to)
        else:
            command.upgrade(config, "head")
        after = versions.get_current_revision() or "base"
        driver: Any = connection.connection.driver_connection
        for role, password in passwords.items():
            # Hashed here, so that no log of the server can ever hold the password.
            hashed = encrypt_password(password, role, driver, "scram-sha-256")
            with driver.cursor() as cursor:
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                cursor.execute(statement.format(sql.Identifier(role), sql.Literal(hashed)))
    return before, after


def await_newest(wait: float) -> str:
    """Wait until the database is at the newest revision.

    One that is not known here is newer: after a rollback the services are older than the database.

    Args:
        wait: How many seconds.

    Returns:
        The revision.

    Raises:
        MigrationError: It was not, in time.
    """
    script = ScriptDirectory.from_config(Config(Path(__file__).with_name("alembic.ini")))
    older = {revision.revision for revision in script.walk_revisions()} - set(script.get_heads())
    settings = connection_settings()
    deadline = time.monotonic() + wait
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: connect(settings, deadline - time.monotonic()), poolclass=NullPool
    )
    while True:
        with engine.connect() as connection:
            versions = MigrationContext.configure(connection, opts={"version_table_schema": "public"})
            current = versions.get_current_revision()
        if current is not None and current not in older:
            return current
        if time.monotonic() > deadline:
            raise MigrationError(f"the database is still at {current or 'base'}: nobody migrated it in time")
        time.sleep(1)


def connection_settings() -> dict[str, Any]:
    """Read where the database is from the environment.

    Returns:
        Arguments for `psycopg2.connect`; libpq's own variables fill in what is missing.

    Raises:
        MigrationError: The password's file cannot be read.
    """
    names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER"}
    found = {key: os.environ.get(f"DATABASE_{name}", "") for key, name in names.items()}
    settings = {key: value for key, value in found.items() if value}
    if file := os.environ.get("DATABASE_PASSWORD_FILE"):
        settings["password"] = read_password(Path(file))
    return settings


def role_passwords() -> dict[str, str]:
    """Read the roles' passwords.

    Returns:
        Password by role; empty when ROLE_PASSWORDS_DIR is not set.

    Raises:
        MigrationError: A role's file cannot be read.
    """
    folder = os.environ.get("ROLE_PASSWORDS_DIR")
    return {role: read_password(Path(folder) / role) for role in ROLES} if folder else {}


def read_password(file: Path) -> str:
    """Read the password that is the file's first line.

    Raises:
        MigrationError: There is none.
    """
    try:
        password = file.read_text(encoding="utf-8").partition("\n")[0]
    except OSError as error:
        raise MigrationError(f"cannot read the password in {file}: {error.strerror}") from None
    if not password:
        raise MigrationError(f"the password in {file} is empty")
    return password


def connect(settings: dict[str, Any], wait: float) -> Any:
    """Connect, and wait for a server that is still starting.

    Args:
        settings: Arguments for `psycopg2.connect`.
        wait: Seconds until it gives up.

    Returns:
        A psycopg2 connection.

    Raises:
        MigrationError: No server in time, or one that does not let us in.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return psycopg2.connect(**settings, connect_timeout=5, application_name="migrate")
        except psycopg2.OperationalError as error:
            reason = str(error).strip()
            # "The database system is starting up" passes; a wrong password or name does not.
            refused = "FATAL:" in reason and "the database system is" not in reason
            if refused or time.monotonic() > deadline:
                raise MigrationError(f"no connection to the database: {reason}") from None
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
