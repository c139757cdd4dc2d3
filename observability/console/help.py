"""What to try, as the README says it, and the keys."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Blueprint

from observability.console import pages, show

README = Path(__file__).parents[2] / "README.md"
_SECTIONS = ("What to try next", "What the shop promises")

routes = Blueprint("help", __name__)


@routes.get("/help")
def shown() -> str:
    """Show help."""
    readme = README.read_text(encoding="utf-8") if README.exists() else ""
    parts = re.split(r"^## ", readme, flags=re.MULTILINE)
    wanted = [part for name in _SECTIONS for part in parts if part.startswith(name + "\n")]
    return pages.page("help.html", text=show.markdown("".join("## " + show.leading_here(part) for part in wanted)))
