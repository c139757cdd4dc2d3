"""Pages name files and tests that exist."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "docs" / f"{name}.md" for name in ("architecture", "copy-this", "security", "tour", "add-a-service")]
FOLDERS = "tests|services|observability|docs|scenarios|requirements|local|nginx|order-db-services|deploy"
NAMED = sorted(
    {(page.name, name) for page in PAGES for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", page.read_text())}
)


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_a_file_that_a_page_names_exists(page, name):
    assert (PROJECT / name).exists(), page
