"""Writes settings into docs/settings.md and docs/opentelemetry.md, from the code: by `make docs`, or run as it is."""

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "docs" / "settings.md"
BEGIN = "<!-- begin: settings, written by `make docs` -->\n"
END = "<!-- end: settings -->\n"
OPENTELEMETRY = ROOT / "docs" / "opentelemetry.md"

ALL = "all services"
SERVICES = ("auth", "user", "product", "order", "payment")
for folder in (".", "services", *(f"services/{name}/src" for name in SERVICES)):
    sys.path.insert(0, str(ROOT / folder))

from auth_service.settings import AuthSettings
from observability.console.settings import ConsoleSettings
from observability.embedded.settings import BackendSettings
from observability.gateway.settings import GatewaySettings
from order_service.settings import OrderSettings
from payment_service.settings import PaymentSettings
from product_service.settings import ProductSettings
from servicekit.config import ServerSettings, Settings
from user_service.settings import SeedSettings, UserSettings


def table() -> str:
    """Return the settings as a Markdown table, with who reads them: a row for each default and meaning of a name."""
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
    rows: dict[tuple[str, str, str], list[str]] = {}
    for reader, classes in readers.items():
        for name, field in (item for kind in classes for item in kind.model_fields.items()):
            default = "required" if field.default is PydanticUndefined else _shown(field.default)
            read_by = rows.setdefault((name, default, field.description or ""), [])
            if reader not in SERVICES or ALL not in read_by:
                read_by.append(reader)
    names = [name for name, *_ in rows]  # one name's rows stand together
    lines = ["| variable | default | read by | meaning |", "|---|---|---|---|"]
    for (name, default, description), read_by in sorted(rows.items(), key=lambda row: names.index(row[0][0])):
        lines.append(f"| `{name.upper()}` | {default} | {', '.join(read_by)} | {description} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default in {None, ""}:
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def opentelemetry() -> str:
    """Return the environment variables of OpenTelemetry that are honoured, as a Markdown table."""
    from servicekit.telemetry.environment import VARIABLES  # noqa: PLC0415

    lines = ["| variable | meaning | default | why |", "|---|---|---|---|"]
    lines += [f"| `{each.name}` | {each.says} | {each.default} | {each.why} |" for each in VARIABLES]
    return "\n".join(lines) + "\n"


def updated(page: str, written: str) -> str:
    """Return a page with the table as it should be."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + written + END + after


if __name__ == "__main__":
    for path, written in ((SETTINGS, table()), (OPENTELEMETRY, opentelemetry())):
        path.write_text(updated(path.read_text(encoding="utf-8"), written), encoding="utf-8")
