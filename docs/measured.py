"""Finds measured numbers in pages that do not say where they come from: `python docs/measured.py`, or `make docs`.

The rule: measured numbers are in blocks that are generated from committed results, or in a section that says at which
commit and on which day they were recorded, in the words of those blocks: "at commit 1a2b3c4, 2026-11-29".
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SAYS = re.compile(r"(?<!\bnot )\b(?:measured|median|best of \d+)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d.,]* ?(?:ns|us|µs|ms|s|kB|KB|MB|MiB|GB|GiB|spans/s|orders/s)(?![\w/])")
_STAMP = re.compile(r"\bat commit [0-9a-f]{7}, \d{4}-\d\d-\d\d")
_ELSEWHERE = re.compile(r"^```.*?^```$|^<!-- begin: ([\w-]+).*?^<!-- end: \1 -->", re.MULTILINE | re.DOTALL)
"""Code, and what is generated."""


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Give each section's title and text, without code, generated blocks and the sections below it."""
    for part in re.split(r"^#+ ", _ELSEWHERE.sub("", page), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        yield title, text


def unfounded(page: str) -> list[str]:
    """Return the sections with a measured number that do not say when it was recorded."""
    return [title for title, text in sections(page) if any(map(_measured, _blocks(text))) and not _STAMP.search(text)]


def _blocks(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _measured(block: str) -> bool:
    return bool(_SAYS.search(block) and _NUMBER.search(block))


def main() -> int:
    """Name each section that breaks the rule."""
    found = [
        f"{page.relative_to(ROOT)}, {title!r}: a measured number without `at commit ..., date`"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for title in unfounded(page.read_text(encoding="utf-8"))
    ]
    print("\n".join(found), end="\n" * bool(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
