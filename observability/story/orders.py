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
_PORTS = {"JAEGER": "16686", "LOKI": "3100", "PROMETHEUS": "9090"}
"""As `docker compose up` has them."""
_ROW = "SELECT row_to_json(o) FROM orders.orders o WHERE id = {:d}"
"""All columns, whatever they are by now."""


@dataclass(frozen=True)
class Shop:
    """A running shop: its order database and the backends of its telemetry."""

    ask: Ask
    jaeger: str
    loki: str
    prometheus: str

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
        environ: The environment: RUN_DIR, JAEGER_PORT, LOKI_PORT and PROMETHEUS_PORT as for `docker compose up`, and
            JAEGER_URL, LOKI_URL and PROMETHEUS_URL for backends elsewhere.
        compose: Do not look for a local stack.

    Raises:
        StoryError: The local stack runs without telemetry.
        LocalError: It cannot be spoken to.
    """
    folder = run_dir(environ)
    ask = orderdb.in_container(_SECONDS)
    ports = {name: environ.get(f"{name}_PORT") or usual for name, usual in _PORTS.items()}
    if not compose and Supervisor.find(folder):
        settings = Settings.of_running(folder)
        if not settings.telemetry:
            raise StoryError("The stack runs with TELEMETRY=off, so nothing keeps its story: `make down up`.")
        ask = orderdb.of_stack(settings, _SECONDS)
        of_stack = settings.ports()
        ports = {name: str(of_stack[f"{name}_PORT"]) for name in _PORTS}
    roots = {
        name: (environ.get(f"{name}_URL") or f"http://localhost:{port}").rstrip("/") for name, port in ports.items()
    }
    return Shop(ask=ask, jaeger=roots["JAEGER"], loki=roots["LOKI"], prometheus=roots["PROMETHEUS"])
