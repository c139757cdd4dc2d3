"""Asks the order database for one JSON value: at an address, or in the container of Docker Compose."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg2

from local.errors import LocalError

if TYPE_CHECKING:
    from local.settings import Settings

OWNER = "orders_user"
_CONNECT_SECONDS = 10

Ask = Callable[[str], Any]
"""Asks a statement for one JSON value; None when there is no row. Raises LocalError."""


def connecting(*, password: Callable[[], str], seconds: int, **where: Any) -> Ask:
    """Give a way to ask the database at an address, read-only.

    Args:
        password: Gives it, at each question.
        seconds: How long a statement may take.
        where: psycopg2's words for the address.
    """

    def ask(statement: str) -> Any:
        try:
            connection = psycopg2.connect(
                **where,
                password=password(),
                connect_timeout=_CONNECT_SECONDS,
                options=f"-c statement_timeout={seconds}s -c default_transaction_read_only=on",
            )
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    row = cursor.fetchone()
                    return row and row[0]
            finally:
                connection.close()
        except (psycopg2.Error, OSError) as error:
            raise LocalError(f"The order database cannot be asked: {_in_a_line(error)}") from error

    return ask


def of_stack(settings: Settings, seconds: int) -> Ask:
    """Give a way to ask the database of a local stack.

    Args:
        settings: The stack.
        seconds: How long a statement may take.
    """
    return connecting(
        host="127.0.0.1",
        port=settings.order_db_port,
        dbname=OWNER,
        user=OWNER,
        password=lambda: (settings.run_dir / "secrets" / OWNER).read_text(encoding="utf-8").strip(),
        seconds=seconds,
    )


def in_container(seconds: int) -> Ask:
    """Give a way to ask in the container of Docker Compose, whose password is in there.

    Args:
        seconds: How long it may take.
    """
    words = ("docker", "exec", "order-db", "psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-U", OWNER, "-d", OWNER, "-c")

    def ask(statement: str) -> Any:
        try:
            done = subprocess.run(
                [*words, statement],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
            said = done.stderr if done.returncode else None
        except OSError:
            said = "there is no docker command"
        except subprocess.TimeoutExpired:
            said = f"no answer within {seconds} s"
        if said is not None:
            reason = _in_a_line(said).removesuffix(".")
            raise LocalError(
                f"No shop runs here: no local stack (`make up`), and no container order-db can be asked ({reason})."
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    return ask


def _in_a_line(error: object) -> str:
    return " ".join(str(error).split())
