"""Reads docs/runbooks."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
PAGES = sorted(page.stem for page in FOLDER.glob("*.md") if page.stem != "README")
SECTIONS = ["What users feel", "How to see it", "Likely causes", "What to do", "How to know it is over"]


def sections(name):
    """The sections of a page: title -> text."""
    parts = re.split(r"^## (.+)$", (FOLDER / f"{name}.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(name, kind, section=None):
    """The fenced blocks of a kind on a page, or in one of its sections."""
    text = sections(name)[section] if section else (FOLDER / f"{name}.md").read_text()
    return [block.strip() for block in re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def all_blocks(kind):
    """(page, block) of all pages."""
    return [(name, block) for name in PAGES for block in blocks(name, kind)]
