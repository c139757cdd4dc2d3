"""Writes the services' settings into the README, from the code: `python docs/configuration.py`, or `make docs`."""

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- begin: settings, written by `make docs` -->\n"
END = "<!-- end: settings -->\n"

ALL = "all services"
SERVICES = ("auth", "user", "product", "order", "payment")
for folder in (".", "services", *(f"services/{name}/src" for name in SERVICES)):
    sys.path.insert(0, str(ROOT / folder))


def table() -> str:
    """Return the settings of all services as a Markdown table, each once, with the services that read it."""
    from auth_service.settings import AuthSettings  # noqa: PLC0415  # found by the path above
    from observability.console.settings import ConsoleSettings  # noqa: PLC0415
    from observability.embedded.settings import BackendSettings  # noqa: PLC0415
    from observability.gateway.settings import GatewaySettings  # noqa: PLC0415
    from order_service.settings import OrderSettings  # noqa: PLC0415
    from payment_service.settings import PaymentSettings  # noqa: PLC0415
    from product_service.settings import ProductSettings  # noqa: PLC0415
    from servicekit.config import ServerSettings, Settings  # noqa: PLC0415
    from user_service.settings import SeedSettings, UserSettings  # noqa: PLC0415

    readers: dict[str, list[type[Settings]]] = {
        ALL: [ServerSettings],
        "auth": [AuthSettings],
        "user": [UserSettings],
        "user's seed step": [SeedSettings],
        "product": [ProductSettings],
        "order": [OrderSettings],
        "payment": [PaymentSettings],
        "gateway-telemetry": [GatewaySettings],
        "embedded-backend": [BackendSettings],
        "console": [ConsoleSettings],
    }
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for reader, classes in readers.items():
        for name, field in (item for kind in classes for item in kind.model_fields.items()):
            default = "required" if field.default is PydanticUndefined else _shown(field.default)
            read_by = rows.setdefault(name, (default, field.description or "", []))[2]
            if reader not in SERVICES or ALL not in read_by:
                read_by.append(reader)
    lines = ["| variable | default | read by | meaning |", "|---|---|---|---|"]
    for name, (default, description, read_by) in rows.items():
        lines.append(f"| `{name.upper()}` | {default} | {', '.join(read_by)} | {description} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default in {None, ""}:
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def updated(readme: str) -> str:
    """Return the README with the table as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
