"""The README and the pages that it was cut into say what is."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from local.settings import Settings

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
SETTINGS = (PROJECT / "docs" / "settings.md").read_text()
MAKEFILE = (PROJECT / "Makefile").read_text()


def test_it_is_one_page():
    assert len(README.splitlines()) <= 150


def test_the_table_of_settings_is_the_codes():
    configuration = runpy.run_path(str(PROJECT / "docs" / "configuration.py"))
    assert configuration["updated"](SETTINGS, configuration["table"]()) == SETTINGS, "run `make docs`"


def test_a_variable_that_two_read_with_different_meanings_has_a_row_for_each():
    configuration = runpy.run_path(str(PROJECT / "docs" / "configuration.py"))
    rows = [row for row in configuration["table"]().splitlines() if row.startswith("| `GATEWAY_URL` |")]
    assert [("gateway_up" in row, "| console |" in row) for row in rows] == [(True, False), (False, True)]


def test_the_table_of_opentelemetrys_variables_is_the_codes():
    configuration = runpy.run_path(str(PROJECT / "docs" / "configuration.py"))
    page = (PROJECT / "docs" / "opentelemetry.md").read_text()
    assert configuration["updated"](page, configuration["opentelemetry"]()) == page, "run `make docs`"


def test_the_settings_page_names_every_setting_of_the_stack():
    for field in dataclasses.fields(Settings):
        assert f"`{field.name.upper()}`" in SETTINGS


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z][a-z-]*)", README))))
def test_every_make_target_it_mentions_exists(target):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_file_it_links_to_exists(link):
    assert (PROJECT / link).exists()
