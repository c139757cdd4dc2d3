"""Pairs of a logfmt line, by go-logfmt's rules, which Loki follows: what is no pair is left out, or an error."""

import re
from collections.abc import Iterator

_NO_TEXT = "\ufffd"
_GAP = re.compile("[\0-\x20]*")
_WORD = re.compile('[^\0-\x20="]*')
_REST = re.compile("[^\0-\x20]*")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_ESCAPE = re.compile(r"""\\(?:u([0-9a-fA-F]{4})|(["\\/'bfnrt])|())""")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Malformed(ValueError):
    """Something in the line is no pair. The message says where, in go-logfmt's words."""

    def __init__(self, text: str, position: int, problem: str) -> None:
        super().__init__(f"logfmt syntax error at pos {len(text[:position].encode()) + 1} : {problem}")


def pairs(text: str, *, strict: bool = False) -> Iterator[tuple[str, str]]:
    """Give the pairs of a line; a key alone has the value ''.

    Args:
        text: The line.
        strict: Whether to stop at what is no pair; otherwise it is left out.

    Raises:
        Malformed: Something is no pair, and `strict` is set.
    """
    position = 0
    while (position := _end(_GAP, text, position)) < len(text):
        try:
            key, value, position = _pair(text, position)
        except _NoPair as problem:
            if strict:
                raise Malformed(text, problem.position, str(problem)) from None
            position = problem.resume
        else:
            yield key, value


class _NoPair(ValueError):
    def __init__(self, problem: str, position: int, resume: int) -> None:
        super().__init__(problem)
        self.position = position
        self.resume = resume


def _pair(text: str, start: int) -> tuple[str, str, int]:
    """Read a pair; give it and the position behind it."""
    position = _end(_WORD, text, start)
    key, mark = text[start:position], text[position : position + 1]
    if mark == '"' or (mark == "=" and not key):
        raise _unexpected(text, position)
    if _NO_TEXT in key:
        raise _NoPair("invalid key", position, _end(_REST, text, position))
    if mark != "=":
        return key, "", position
    position += 1
    if text[position : position + 1] == '"':
        return key, *_quoted(text, position)
    end = _end(_WORD, text, position)
    if text[end : end + 1] in {"=", '"'}:
        raise _unexpected(text, end)
    return key, text[position:end], end


def _unexpected(text: str, position: int) -> _NoPair:
    return _NoPair(f"unexpected '{text[position]}'", position, _end(_REST, text, position))


def _quoted(text: str, start: int) -> tuple[str, int]:
    found = _QUOTED.match(text, start)
    if found is None:
        raise _NoPair("unterminated quoted value", len(text), len(text))
    value = found[1]
    if "\\" in value:
        if any(escape[3] is not None for escape in _ESCAPE.finditer(value)):
            raise _NoPair("invalid quoted value", found.end(), found.end())
        value = _ESCAPE.sub(_unescaped, value)
        # Joins the halves of surrogate pairs, and puts U+FFFD in place of a half alone.
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value, found.end()


def _unescaped(escape: re.Match[str]) -> str:
    code, char, _ = escape.groups()
    return chr(int(code, 16)) if code else _ESCAPED.get(char, char)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()
