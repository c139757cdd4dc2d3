"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.grafana import database, load, order_path, overview, service, telemetry

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).with_name("dashboards")


def texts() -> dict[str, str]:
    """Give what the files should be: name -> text."""
    boards = [module.build() for module in (overview, order_path, service, database, telemetry, load)]
    return {f"{made.uid}.json": _text(made) for made in boards}


def _text(made: Dashboard) -> str:
    document = json.loads(JSONEncoder().encode(made))
    for one in (*document["links"], *document["annotations"]["list"]):
        del one["placement"]  # the SDK knows no other place than a menu, where nobody finds it
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def write() -> None:
    """Write them, and delete what is no dashboard any more."""
    wanted = texts()
    for file in FOLDER.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
