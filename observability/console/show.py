"""Values as people read them."""

from __future__ import annotations

import math
import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from observability.story.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_SUFFIXES = {"reqps": " req/s", "Bps": "B/s", "bytes": "B"}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


def seconds(value: float) -> str:
    """Write a duration."""
    for least, factor, unit in ((86_400, 86_400, "d"), (3600, 3600, "h"), (120, 60, "min"), (1, 1, "s")):
        if abs(value) >= least:
            return f"{value / factor:.3g} {unit}"
    if abs(value) >= 1e-3:  # noqa: PLR2004
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs" if value else "0 s"


def microseconds(value: float) -> str:
    """Write a duration that is given in microseconds."""
    return seconds(value / 1e6)


def quantity(value: float | None, unit: str = "short") -> str:
    """Write a number of one of Grafana's units."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001
    if unit == "s":
        return seconds(value)
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    suffix = " " + unit.removeprefix("suffix:") if unit.startswith("suffix:") else _SUFFIXES.get(unit, "")
    for scale, letter in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {letter}{suffix}"
    return f"{value:.3g}{' ' if suffix == 'B' else ''}{suffix}"


def iso(value: float) -> str:
    """Write a time in seconds since 1970 as a `<time>` element wants it; UTC."""
    try:
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{value:.0f} s after 1970"


def curl(url: str, fields: Mapping[str, str] | None = None) -> str:
    """Write the command that asks this, fit to be pasted: nothing in it can end a word, or is hidden."""
    words = [_word(url)] if fields is None else ["-G", _word(url)]
    words += [f"--data-urlencode {_word(f'{name}={value}')}" for name, value in (fields or {}).items() if value]
    return " ".join(["curl", *words])


def _word(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    # A terminal may take a line break that is pasted as the Enter key, even between quotes.
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in character.encode())


def money(minor: object, currency: object) -> str:
    """Write an amount of minor units."""
    return f"{minor / 100:,.2f} {clean(currency, 8)}" if isinstance(minor, int) else "–"  # noqa: RUF001


def leading_here(text: str) -> str:
    """Let the links of a page of ours lead to the console's pages; a file of the project is named instead."""

    def changed(link: re.Match[str]) -> str:
        words, target = link.groups()
        if board := re.fullmatch(r"http://localhost:3000/d/([\w-]+)(?:\?.*)?", target):
            return f"[{words}](/dashboards/{board[1]})"
        if target.startswith("http"):
            return link[0]
        target = target.partition("#")[0]
        if "runbooks/" in target or ("/" not in target and target.endswith(".md")):
            name = target.rpartition("/")[2].removesuffix(".md")
            return f"[{words}](/runbooks/{'' if name == 'README' else name})"
        return f"{words} (`{target}`)"

    return _LINK.sub(changed, text)


def markdown(text: str) -> str:
    """Render a page of ours; markup in it stays text."""
    rendered: str = _markdown.render(text)
    return rendered
