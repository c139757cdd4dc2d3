"""A measured number in a page says where it comes from."""

import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NUMBERS = runpy.run_path(str(PROJECT / "docs" / "measured.py"))
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_no_page_has_a_measured_number_that_comes_from_nowhere(page):
    assert NUMBERS["unfounded"](page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "unfounded"),
    [
        ("Measured: 12 ms.", True),
        ("Measured: 12 ms. Recorded at commit 1a2b3c4, 2026-11-29.", False),
        ("| what | measured |\n|---|---|\n| start | 1.2 s |", True),
        ("Median of five: 38 MB", True),
        ("A call may take 3 s.", False),
        ("It was not measured how long 512 MiB last.", False),
        ("Measured on two cores.\n\nA call may take 3 s.", False),
        ("<!-- begin: budget -->\n\nMeasured: 12 ms\n\n<!-- end: budget -->", False),
        ("```console\nmeasured 12 ms\n```", False),
        ("Measured: 12 ms.\n## Another\nat commit 1a2b3c4, 2026-11-29", True),
    ],
)
def test_the_rule(text, unfounded):
    assert bool(NUMBERS["unfounded"](f"# A page\n{text}\n")) == unfounded
