"""Builds the site of the Markdown pages, strictly: a link or an anchor that leads nowhere fails. By `make site`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / ".site" / "pages"
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_FENCE = re.compile(r"^ *(```|~~~)")
_ITEM = re.compile(r"^( *)([-*]|\d+\.) ")


def pages() -> list[Path]:
    """Return the pages: those of docs/, and every Markdown file that one of them leads to."""
    found, left = set[Path](), [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    while left:
        page = left.pop()
        if page in found:
            continue
        found.add(page)
        left += [target for target in linked(page) if target.suffix == ".md" and target.is_file()]
    return sorted(found)


def linked(page: Path) -> list[Path]:
    """Return the files that a page leads to."""
    return [(page.parent / link).resolve() for link in _LINK.findall(page.read_text(encoding="utf-8"))]


def as_mkdocs_reads_it(text: str) -> str:
    """Return a page in the Markdown of MkDocs, where lists and tables follow an empty line and nest by four spaces."""
    lines, fenced = list[str](), False
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and before.strip():
            item = _ITEM.match(line)
            new_item = item and not (_ITEM.match(before) or before.startswith(" "))
            new_table = line.startswith("|") and not before.startswith("|")
            if new_item or new_table:
                lines.append("")
        if not fenced and (item := _ITEM.match(line)) and item[1]:
            line = "    " + line.lstrip()  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Copy what the site is made of, and build it."""
    shutil.rmtree(PAGES.parent, ignore_errors=True)
    for page in pages():
        copy = PAGES / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(as_mkdocs_reads_it(page.read_text(encoding="utf-8")), encoding="utf-8")
        for target in linked(page):
            if target.is_file() and target.suffix != ".md":
                (PAGES / target.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(target, PAGES / target.relative_to(ROOT))
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # what the theme will be replaced by, in every build
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(build, cwd=ROOT, env=quiet, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
