"""Where the shop runs that the story is about, and its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local import orderdb
from local.settings import Settings, run_dir
from local.supervision import Supervisor
from observability.story.errors import StoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.orderdb import Ask

_SECONDS = 10
_ROW = "SELECT row_to_json(o) FROM orders.orders o WHERE id = {:d}"
"""All columns, whatever they are by now."""


@dataclass(frozen=True)
class Shop:
    """A running shop: its order database and the backends of its telemetry."""

    ask: Ask
    jaeger: str
    loki: str

    def row(self, order_id: int) -> dict[str, Any]:
        """Give an order's row with all its columns.

        Raises:
            StoryError: There is no such order.
            LocalError: The database cannot be asked.
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
        StoryError: The local stack runs without telemetry.
        LocalError: It cannot be spoken to.
    """
    folder = run_dir(environ)
    ask = orderdb.in_container(_SECONDS)
    jaeger_port, loki_port = environ.get("JAEGER_PORT") or "16686", environ.get("LOKI_PORT") or "3100"
    if not compose and Supervisor.find(folder):
        settings = Settings.of_running(folder)
        if not settings.telemetry:
            raise StoryError("The stack runs with TELEMETRY=off, so nothing keeps its story: `make down up`.")
        ask = orderdb.of_stack(settings, _SECONDS)
        jaeger_port, loki_port = str(settings.jaeger_port), str(settings.loki_port)
    return Shop(
        ask=ask,
        jaeger=(environ.get("JAEGER_URL") or f"http://localhost:{jaeger_port}").rstrip("/"),
        loki=(environ.get("LOKI_URL") or f"http://localhost:{loki_port}").rstrip("/"),
    )
