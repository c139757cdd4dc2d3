"""docs/reading.md names an afternoon's worth of files."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "reading.md").read_text()


def test_what_it_names_to_be_read_is_about_2500_lines():
    named = re.findall(r"^   - `([\w./-]+)`$", PAGE, re.MULTILINE)
    lines = sum(len((PROJECT / name).read_text().splitlines()) for name in named)
    assert "about 2,500 lines" in PAGE
    assert 2_250 <= lines <= 2_750, lines


def test_what_it_names_to_be_left_out_exists():
    for name in re.findall(r"`((?:servicekit|observability)/[\w./-]+)`", PAGE.partition("Leave out")[2]):
        folder = PROJECT / "services" if name.startswith("servicekit") else PROJECT
        assert (folder / name).exists(), name
