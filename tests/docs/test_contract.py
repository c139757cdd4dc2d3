"""docs/telemetry.md says what the contract says."""

import runpy
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_the_page_is_made_of_the_contract():
    contract = runpy.run_path(str(PROJECT / "docs" / "contract.py"))
    assert contract["page"]() == (PROJECT / "docs" / "telemetry.md").read_text(), "run `make docs`"
