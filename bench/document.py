"""The measured tables of docs, written from the results that are kept in docs/performance.

No number in them is typed by hand.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from bench import reckoning, report
from bench.errors import BenchError
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGES = tuple(PROJECT / "docs" / f"{name}.md" for name in ("performance", "capacity", "scenarios"))
KEPT = PROJECT / "docs" / "performance"
"""The results that the pages show, as JSON."""

STEP = "step-"
"""How the names of results begin that are lines of the table of steps."""

_MISSING = "\nNot measured yet.\n\n"
_BLOCK = re.compile(r"(<!-- begin: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def keep(results: Path, names: Sequence[str]) -> None:
    """Copy results into the project.

    Raises:
        BenchError: There is no such result, or it was only a trial.
    """
    KEPT.mkdir(exist_ok=True)
    for name in names:
        if not (results / f"{name}.json").is_file():
            raise BenchError(f"There is no {results / name}.json: measure it first.")
        if _read(results / f"{name}.json").get("noisy"):
            raise BenchError(f"{results / name}.json was measured with --noisy: measure it again on a quiet machine.")
        shutil.copy(results / f"{name}.json", KEPT / f"{name}.json")


def filled(page: str) -> str:
    """Return the page with its blocks made anew from the results."""
    return _BLOCK.sub(lambda match: match[1] + _content(match[2]) + match[3], page)


def _content(name: str) -> str:
    if name == "steps":
        found = [_read(path) for path in sorted(KEPT.glob(f"{STEP}*.json"))]
        return f"\n{report.steps(found).markdown()}\n" if found else "\nNo step was measured yet.\n\n"
    if name in reckoning.TABLES:
        capacity, stores, cluster = (_kept(of) for of in ("capacity", "stores", "cluster"))
        if not capacity or not stores:
            return _MISSING
        return f"\n{reckoning.TABLES[name](capacity | {'stores': stores}, cluster).markdown()}\n"
    result = _kept(name)
    if result and name == "switches":
        return f"{report.switches_sentence(result)}\n"
    return f"\n{report.markdown(result)}\n" if result else _MISSING


def _kept(name: str) -> dict[str, Any] | None:
    path = KEPT / f"{name}.json"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
