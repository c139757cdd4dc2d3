"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.grafana import database, load, order_path, overview, service, telemetry

FOLDER = Path(__file__).with_name("dashboards")


def texts() -> dict[str, str]:
    """Give what the files should be: name -> text."""
    boards = [module.build() for module in (overview, order_path, service, database, telemetry, load)]
    return {f"{made.uid}.json": JSONEncoder(sort_keys=True, indent=1).encode(made) + "\n" for made in boards}


def write() -> None:
    """Write them, and delete what is no dashboard any more."""
    wanted = texts()
    for file in FOLDER.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
