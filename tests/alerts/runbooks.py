"""Reads docs/runbooks."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
PAGES = sorted(page.stem for page in FOLDER.glob("*.md") if page.stem != "README")
SECTIONS = ["What users feel", "How to see it", "Likely causes", "What to do", "How to know it is over"]

_FAULTS = "a fault is told, and there is none; test_live.py has them"
EMPTY_WHEN_WELL = {
    "otelcol_": "the Collector is in Compose only; tests/compose asks it",
    "dependency.unavailable": _FAULTS,
    "processor.unavailable": _FAULTS,
    "order.left_pending": _FAULTS,
    "telemetry.export_failed": _FAULTS,
    '"429"': "nobody is refused; test_live.py has somebody who is",
    "duration_s > 0.5": "no order is that slow; test_live.py has some",
    "pg_blocking_pids": "nobody waits for a lock; test_live.py has somebody who does",
    "status = 'PENDING'": "all orders are settled; test_live.py has some that are not",
}
"""Queries of which it is right that they find nothing in a shop that is well: what they contain -> the reason."""


def empty_when_well(query):
    """Why a query finds nothing in a shop that is well; None when it has to find something."""
    return next((reason for part, reason in EMPTY_WHEN_WELL.items() if part in query), None)


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
