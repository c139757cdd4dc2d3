"""Text of others, made fit to be shown: whoever may send a span must not write to the reader's terminal."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

SHORT, LONG = 120, 2000
"""The most characters of a name, and of a value."""

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))
"""What moves the cursor, changes the direction, is not seen or is no character: control characters, bidirectional
overrides, zero width, lone surrogates, line separators."""
_DEEPEST = 50


def clean(said: object, limit: int = LONG) -> str:
    """Escape all that is no visible character, and cut what is too long."""
    text = str(said)
    cut = text[:limit]
    if not cut.isprintable():  # which holds for most text, and finds all but some kinds of space
        cut = "".join(_escaped(each) if unicodedata.category(each) in _HIDDEN else each for each in cut)
    return cut if len(text) <= limit else f"{cut}… ({len(text):,} characters)"


def one_line(value: Any) -> str:
    """Write a JSON value as `clean` text; a string without its quotes."""
    if isinstance(value, str):
        return clean(value)
    return clean(json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False))


def plain(value: Any, depth: int = 0) -> Any:
    """Make a value fit for JSON: Infinity and NaN have no place in it, and it has to end somewhere."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        if depth == _DEEPEST:
            return "…"
        if isinstance(value, dict):
            return {name: plain(each, depth + 1) for name, each in value.items()}
        return [plain(each, depth + 1) for each in value]
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
