"""Write a release's notes from the commits since the release before.

Usage: python -m release.changes v1.2.0

A commit's first line says what changes for whom (CONTRIBUTING.md), so it is what stands here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = {  # heading -> how its files begin
    "The shop": ("services/", "nginx/", "order-db-services/"),
    "Telemetry": ("observability/", "scenarios/"),
    "Running it": ("docker-", "Dockerfile", "deploy/", "local/", "Makefile", "requirements/", "loadtest/"),
    "Tests, docs and tools": ("",),
}


LIMIT = 120_000
"""A release's page takes 125,000 characters."""


def notes(tag: str, folder: str = ".") -> str:
    """Write what changed between the release before and this one, in Markdown."""
    before = _previous(tag, folder)
    # Between two zero bytes: hash, first line, then the files, a line each.
    log = _git(folder, "log", "--no-merges", "--reverse", "--name-only", "--format=%x00%h%x00%s", _range(before, tag))
    changes: dict[str, list[str]] = {part: [] for part in PARTS}
    fields = log.split("\0")[1:]
    for commit, rest in zip(fields[::2], fields[1::2], strict=True):
        subject, _, files = rest.partition("\n")
        changes[part_of(files.split())].append(f"- {escaped(subject)} ({commit})")
    since = f"Since {before}." if before else "The first release."
    text = "\n".join([since, *(f"\n## {part}\n\n" + "\n".join(lines) for part, lines in changes.items() if lines), ""])
    if len(text) <= LIMIT:
        return text
    whole, _, _ = text[:LIMIT].rpartition("\n")
    return f"{whole}\n\nThere are more than fit on this page: `git log {_range(before, tag)}` shows all.\n"


def part_of(files: Sequence[str]) -> str:
    """Say which part most files are of. Tests and docs count only if there is nothing else."""
    heads = [next(part for part, begins in PARTS.items() if file.startswith(begins)) for file in files]
    *_, rest = PARTS
    counted = Counter(head for head in heads if head != rest)
    return counted.most_common(1)[0][0] if counted else rest


def escaped(line: str) -> str:
    """Keep what a commit says from being taken for Markdown, a mention or HTML; what is in `code` stays."""
    pieces = re.split(r"(`[^`]*`)", line)
    return "".join(piece if piece[:1] == "`" else re.sub(r"([\\*_\[\]<>@#])", r"\\\1", piece) for piece in pieces)


def _previous(tag: str, folder: str) -> str:
    """Find the release before, on the same line of commits; empty if there is none."""
    known = _git(folder, "tag", "--list", "v*", "--merged", tag, "--sort=-version:refname").split()
    final = [one for one in known if re.fullmatch(r"v\d+\.\d+\.\d+", one) and one != tag]
    return (final or [""])[0]


def _range(before: str, tag: str) -> str:
    return f"{before}..{tag}" if before else tag


def _git(folder: str, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Print the notes."""
    (tag,) = arguments
    print(notes(tag), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
