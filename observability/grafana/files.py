"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.grafana import database, load, order_path, overview, runbooks, service, telemetry

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).with_name("dashboards")
RUNBOOKS = Path(__file__).with_name("provisioning") / "runbooks"
"""In a folder that Grafana has anyway, and reads nothing else in."""


def texts() -> dict[Path, str]:
    """Give what the files should be: path -> text."""
    boards = [module.build() for module in (overview, order_path, service, database, telemetry, load)]
    return {
        **{FOLDER / f"{made.uid}.json": _text(made) for made in boards},
        **{RUNBOOKS / f"{made.uid}.json": _text(made) for made in runbooks.build_all()},
    }


def _text(made: Dashboard) -> str:
    document = json.loads(JSONEncoder().encode(made))
    for one in (*document.get("links", []), *document.get("annotations", {}).get("list", [])):
        del one["placement"]  # the SDK knows no other place than a menu, where nobody finds it
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def committed() -> list[Path]:
    """Give the files that there are."""
    return [*FOLDER.glob("*.json"), *RUNBOOKS.glob("*.json")]


def write() -> None:
    """Write them, and delete what is no dashboard any more."""
    wanted = texts()
    for file in committed():
        if file not in wanted:
            file.unlink()
    RUNBOOKS.mkdir(exist_ok=True)
    for file, text in wanted.items():
        file.write_text(text, encoding="utf-8")
