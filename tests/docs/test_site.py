"""The site of the Markdown pages: every link and anchor leads somewhere, and pages look as they do elsewhere."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SITE = runpy.run_path(str(PROJECT / "docs" / "website.py"))


def test_it_can_be_built_strictly():
    done = subprocess.run(
        [sys.executable, "docs/website.py"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    html = PROJECT / ".site" / "html"
    assert 'class="mermaid"' in (html / "docs" / "architecture.html").read_text()
    assert (html / "services/order/src/order_service/ordering.py").is_file()  # what a page leads to is there


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Why:\n- a\n- b\n", "Why:\n\n- a\n- b\n"),
        ("Why:\n1. a\n", "Why:\n\n1. a\n"),
        ("Why:\n| a |\n|---|\n", "Why:\n\n| a |\n|---|\n"),
        ("- a\n  goes on\n- b\n", "- a\n  goes on\n- b\n"),
        ("1. a\n   - b\n", "1. a\n    - b\n"),
        ("```\nx\n- a\n```\n", "```\nx\n- a\n```\n"),
    ],
)
def test_lists_and_tables_are_what_they_are_on_github(text, read):
    assert SITE["as_mkdocs_reads_it"](text) == read


def test_every_page_of_the_docs_is_in_the_list_of_pages():
    index = (PROJECT / "docs" / "README.md").read_text()
    pages = {page.name for page in (PROJECT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()
