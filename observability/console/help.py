"""What to try, what the shop promises, and the keys."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Blueprint

from observability.console import pages, show

DOCS = Path(__file__).parents[2] / "docs"
_PAGES = ("try.md", "promises.md")

routes = Blueprint("help", __name__)


@routes.get("/help")
def shown() -> str:
    """Show help."""
    texts = [(DOCS / name).read_text(encoding="utf-8") for name in _PAGES if (DOCS / name).exists()]
    from_the_root = [
        re.sub(r"\]\((?!http)", "](docs/", text) for text in texts
    ]  # else they look like links of runbooks
    return pages.page("help.html", text=show.markdown("\n".join("#" + show.leading_here(one) for one in from_the_root)))
