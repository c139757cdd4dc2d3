"""Make one page of what a night's jobs left: Markdown, and what the tests' reports count. `make nightly-page`.

Usage: python -m bench.page RESULTS PAGE
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLE = "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto}td,th{padding:.2em .8em;text-align:left}"


def tests(reports: Sequence[Path]) -> str:
    """Count what reports of tests say, and name what failed."""
    lines = ["## Tests", "", "| report | tests | failed | skipped | seconds |", "|---|---|---|---|---|"]
    failed = []
    for report in reports:
        suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314  # pytest of the same workflow wrote it
        for suite in suites:
            bad = sum(int(suite.get(kind, 0)) for kind in ("failures", "errors"))
            seconds = float(suite.get("time", 0))
            lines.append(f"| {report.stem} | {suite.get('tests')} | {bad} | {suite.get('skipped')} | {seconds:.0f} |")
            failed += [
                f"- `{case.get('classname')}::{case.get('name')}`"
                for case in suite.iter("testcase")
                if case.find("failure") is not None or case.find("error") is not None
            ]
    return "\n".join([*lines, "", *failed, ""])


def collect(folder: Path) -> str:
    """Put all parts of the page together, in Markdown."""
    reports = sorted(folder.rglob("*.xml"))
    parts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("nightly/*.md"))]
    if reports:
        parts.append(tests(reports))
    return "\n\n".join(["# What the night's jobs found", *(parts or ["They left nothing."]), ""])


def html(markdown: str) -> str:
    """Render a page. What comes from results is text: HTML in it is shown, not taken."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    head = f'<meta charset="utf-8"><title>nightly</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{body}</html>\n'


def main(arguments: Sequence[str]) -> int:
    """Write index.md and index.html."""
    results, page = map(Path, arguments)
    page.mkdir(parents=True, exist_ok=True)
    text = collect(results)
    (page / "index.md").write_text(text, encoding="utf-8")
    (page / "index.html").write_text(html(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
