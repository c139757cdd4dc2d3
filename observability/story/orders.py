"""Where the shop runs that the story is about, and its rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2

from local.errors import LocalError
from local.settings import Settings, run_dir
from local.supervision import Supervisor
from observability.story.errors import StoryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECONDS = 10
_OWNER = "orders_user"
_ROW = "SELECT row_to_json(o) FROM orders.orders o WHERE id = {:d}"
"""All columns, whatever they are by now."""


Ask = Callable[[str], Any]
"""Asks the order database a statement for one JSON value; None when there is no row."""


@dataclass(frozen=True)
class Shop:
    """A running shop: its order database and the backends of its telemetry."""

    ask: Ask
    jaeger: str
    loki: str

    def row(self, order_id: int) -> dict[str, Any]:
        """Give an order's row with all its columns.

        Raises:
            StoryError: There is no such order, or the database cannot be asked.
        """
        found: dict[str, Any] | None = self.ask(_ROW.format(order_id))
        if found is None:
            raise StoryError(f"There is no order {order_id}.")
        return found


def find(environ: Mapping[str, str], *, compose: bool) -> Shop:
    """Find the shop that runs: the local stack, else the one in Docker Compose.

    Args:
        environ: The environment: RUN_DIR, JAEGER_PORT and LOKI_PORT as for `docker compose up`, and JAEGER_URL and
            LOKI_URL for backends elsewhere.
        compose: Do not look for a local stack.

    Raises:
        StoryError: The local stack runs without telemetry, or cannot be spoken to.
    """
    folder = run_dir(environ)
    ask: Ask = _ask_container
    jaeger_port, loki_port = environ.get("JAEGER_PORT") or "16686", environ.get("LOKI_PORT") or "3100"
    try:
        if not compose and Supervisor.find(folder):
            settings = Settings.of_running(folder)
            if not settings.telemetry:
                raise StoryError("The stack runs with TELEMETRY=off, so nothing keeps its story: `make down up`.")
            ask = _asking(settings.order_db_port, folder / "secrets" / _OWNER)
            jaeger_port, loki_port = str(settings.jaeger_port), str(settings.loki_port)
    except LocalError as error:
        raise StoryError(str(error)) from error
    return Shop(
        ask=ask,
        jaeger=(environ.get("JAEGER_URL") or f"http://localhost:{jaeger_port}").rstrip("/"),
        loki=(environ.get("LOKI_URL") or f"http://localhost:{loki_port}").rstrip("/"),
    )


def _asking(port: int, password_file: Path) -> Ask:
    def ask(statement: str) -> Any:
        try:
            password = password_file.read_text(encoding="utf-8").strip()
            connection = psycopg2.connect(
                host="127.0.0.1",
                port=port,
                dbname=_OWNER,
                user=_OWNER,
                password=password,
                connect_timeout=_SECONDS,
                options=f"-c statement_timeout={_SECONDS}s",
            )
        except (psycopg2.OperationalError, OSError) as error:
            raise StoryError(f"The order database does not answer: {' '.join(str(error).split())}") from error
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                row = cursor.fetchone()
                return row and row[0]
        except psycopg2.Error as error:
            raise StoryError(f"The order database refuses: {' '.join(str(error).split())}") from error
        finally:
            connection.close()

    return ask


def _ask_container(statement: str) -> Any:
    command = ["docker", "exec", "order-db", "psql", "-X", "-At", "-U", _OWNER, "-d", _OWNER, "-c", statement]
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
        said = None if done.returncode == 0 else done.stderr
    except OSError:
        said = "there is no docker command"
    except subprocess.TimeoutExpired:
        said = f"no answer within {_SECONDS} s"
    if said is not None:
        reason = " ".join(said.split()).removesuffix(".")
        raise StoryError(
            f"No shop runs here: no local stack (`make up`), and no container order-db can be asked ({reason})."
        )
    return json.loads(done.stdout) if done.stdout.strip() else None
