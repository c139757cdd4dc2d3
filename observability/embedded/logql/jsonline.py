"""Fields of a line of JSON, as far as it is one, by the rules of jsonparser, the library that Loki uses.

It looks at a line as far as it is asked to, and at no rule more than it needs: numbers stay as they are written, a raw
TAB in a text is one, and what comes before a mistake is found. A line that is right is read by Python's own decoder.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Path = tuple[str | int, ...]
Fields = list[tuple[str, str]]
_Walked = tuple[dict[str | int, tuple[int, int]], str | None, "Malformed | None"]

_NO_TEXT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_TOKEN = re.compile(r"[^ \t\r\n,}\]]*")
_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]]', re.DOTALL)
_ESCAPE = re.compile(r"""\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])|(\\)""")
_NULL = "null"
_LITERALS = frozenset({"true", "false", _NULL})
_MAX_NAMES = 2**20  # characters of the names of a line's fields together

_NO_STRING = "Value is string, but can't find closing '\"' symbol"
_NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"
_NO_ARRAY = "Value is array, but can't find closing ']' symbol"
_NO_ESCAPE = "Encountered an invalid escape sequence in a string"
_NO_COLON = "Malformed JSON error"
_NO_VALUE = "Malformed Value error"
_UNKNOWN = "Unknown value type"
_TOO_LONG = f"the names of the fields have more than {_MAX_NAMES} characters together"

_UNREADABLE = object()  # what is no scalar, or is not known
_NOTHING = object()


class Malformed(ValueError):
    """The line is no JSON from some place on. The message has jsonparser's words."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# Numbers stay as they are written: 1.50 is "1.50". Objects become tuples, as a name may come twice.
_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=_refuse_constant, strict=False, object_pairs_hook=tuple
)


def fields(text: str) -> tuple[Fields, str]:
    """Give the fields of an object, also of those in it, in order, each a name and a text; and what was wrong with it.

    The names of a field and of the objects around it are joined by `_`.
    """
    found: Fields = []
    try:
        try:
            document, _ = _DECODER.raw_decode(text, _skip(text, 0))
        except (ValueError, RecursionError):
            _Scanner(text).collect(_skip(text, 0), _Collected(found))
            return found, ""
        if not isinstance(document, tuple):
            return found, _NO_OBJECT
        _collect(document, "", _Collected(found))
    except RecursionError:
        return found, _NO_OBJECT
    except Malformed as problem:
        return found, str(problem)
    return found, ""


class _Collected:
    """The fields found so far; a bound, since each name of an object is in the names of all in it."""

    def __init__(self, into: Fields) -> None:
        self._into = into
        self._left = _MAX_NAMES

    def add(self, name: str, value: str) -> None:
        self._left -= len(name)
        if self._left < 0:
            raise Malformed(_TOO_LONG)
        self._into.append((name, value))


def _collect(members: tuple[tuple[str, Any], ...], prefix: str, into: _Collected) -> None:
    for key, value in members:
        if not key.isascii() and _SURROGATE.search(key):
            raise Malformed(_NO_ESCAPE)
        if isinstance(value, str):
            into.add(prefix + key, _text(value))
        elif isinstance(value, tuple):
            _collect(value, f"{prefix}{key}_"[:_MAX_NAMES], into)
        elif value is True or value is False:
            into.add(prefix + key, "true" if value else "false")


def at_paths(text: str, paths: Sequence[Path]) -> tuple[list[str | None], str]:
    """Give what is at each path, None where there is nothing; and what was wrong with one of them, if something was."""
    scanner = _Scanner(text)
    try:
        document, _ = _DECODER.raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError):
        document = _UNREADABLE
    found: list[str | None] = []
    problem = ""
    for path in paths:
        value = _decoded_at(document, path)
        if value is _UNREADABLE:
            try:
                value = scanner.at(path)
            except Malformed as error:
                value, problem = None, str(error)
        found.append(value)
    return found, problem


def _decoded_at(document: Any, path: Path) -> Any:
    """Give the text at a path; what is no scalar has to be taken from the line itself, as it is written there."""
    for step in path:
        if isinstance(step, str) and isinstance(document, tuple):
            document = next((value for key, value in document if key == step), _NOTHING)
        elif isinstance(step, int) and isinstance(document, list) and step < len(document):
            document = document[step]
        elif document is not _UNREADABLE:
            return None
    match document:
        case str():
            return _text(document)
        case bool():
            return "true" if document else "false"
        case None:
            return ""
    return None if document is _NOTHING else _UNREADABLE


def _text(value: str) -> str:
    """Leave out what is no valid text, as Loki does: half a surrogate pair could not even be sent."""
    if value.isascii():
        return value
    return "" if _SURROGATE.search(value) else value.replace(_NO_TEXT, " ")


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()


class _Scanner:
    """Looks at a line piece by piece; a value is given as where it begins and ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[int, int] | None = None
        self._walked: dict[int, _Walked] = {}
        self._values: dict[int, str] = {}
        self._last_key: str | None = None

    def collect(self, position: int, into: _Collected, prefix: str = "") -> None:
        """Find the fields of an object.

        Raises:
            Malformed: It is none, or not from some place on.
        """
        for key, start, end in self._members(position):
            match self._text[start]:
                case "{":
                    self.collect(start, into, f"{prefix}{key}_"[:_MAX_NAMES])
                case '"':
                    into.add(prefix + key, _text(_unescaped(self._text[start + 1 : end - 1]) or ""))
                case "[":
                    pass
                case _:
                    scalar = self._text[start:end]
                    if not _is_scalar(scalar):
                        raise Malformed(_UNKNOWN)
                    if scalar != _NULL:
                        into.add(prefix + key, scalar)

    def at(self, path: Path) -> str | None:
        """Give what is at a path as text: an object as it is written, a text without its escapes.

        Raises:
            Malformed: What is there is no value.
        """
        start = end = _skip(self._text, 0)
        for number, step in enumerate(path):
            try:
                inside = self._inside(start, step)
            except Malformed:
                if number + 1 == len(path) and self._is_asked:
                    raise
                return None
            if inside is None:
                return None
            start, end = inside
        if start not in self._values:
            self._values[start] = self._value(start, end)
        return self._values[start]

    def _inside(self, position: int, step: str | int) -> tuple[int, int] | None:
        """Say where the value of one step begins and ends. What a step has walked through, no other walks again."""
        self._is_asked = False
        if position not in self._walked:
            self._walked[position] = self._walk(position)
        parts, failed_at, problem = self._walked[position]
        if step in parts or problem is None or isinstance(step, int):
            return parts.get(step)
        self._is_asked = step == failed_at
        raise problem

    def _walk(self, position: int) -> _Walked:
        """Find the parts of an object or list by name or number, and the name at which it ended and why, if it did."""
        parts: dict[str | int, tuple[int, int]] = {}
        try:
            if self._text[position : position + 1] == "[":
                parts.update(enumerate(self._elements(position)))
                return parts, None, Malformed(_NO_OBJECT)
            self._last_key = None
            for key, start, end in self._members(position):
                parts.setdefault(key, (start, end))
        except Malformed as problem:
            return parts, self._last_key, problem
        return parts, None, None

    def _value(self, start: int, end: int) -> str:
        raw = self._text[start:end]
        match raw[0]:
            case "{":
                return raw
            case '"':
                return _text(_unescaped(raw[1:-1]) or "")
            case "[":
                return _text(_unescaped(raw) or "")
        if not _is_scalar(raw):
            raise Malformed(_UNKNOWN)
        return "" if raw == _NULL else raw

    def _members(self, position: int) -> Iterator[tuple[str, int, int]]:
        """Give an object's members: the key, and where the value begins and ends."""
        text = self._text
        if text[position : position + 1] != "{":
            raise Malformed(_NO_OBJECT)
        position = _skip(text, position + 1)
        while text[position : position + 1] != "}":
            key, position = self._key(position)
            self._last_key = key
            start = _skip(text, position + 1)
            end = self._end(start)
            yield key, start, end
            position = _skip(text, end)
            match text[position : position + 1]:
                case "":
                    raise Malformed(_NO_ARRAY)
                case ",":
                    position = _skip(text, position + 1)
                case "}":
                    return
                case _:
                    raise Malformed(_NO_OBJECT)

    def _key(self, position: int) -> tuple[str, int]:
        """Read a member's key; give it and the position of the colon behind it."""
        text = self._text
        if text[position : position + 1] != '"':
            raise Malformed(_NO_OBJECT if position < len(text) else _NO_COLON)
        found = _STRING.match(text, position)
        if found is None:
            raise Malformed(_NO_STRING)
        key = _unescaped(found[1])
        if key is None:
            raise Malformed(_NO_ESCAPE)
        position = _skip(text, found.end())
        if text[position : position + 1] != ":":
            raise Malformed(_NO_COLON)
        return key, position

    def _elements(self, position: int) -> Iterator[tuple[int, int]]:
        text = self._text
        position = _skip(text, position + 1)
        while text[position : position + 1] not in {"]", ""}:
            end = self._end(position)
            yield position, end
            position = _skip(text, end)
            if text[position : position + 1] != ",":
                return
            position = _skip(text, position + 1)

    def _end(self, start: int) -> int:
        """Say where a value ends."""
        match self._text[start : start + 1]:
            case '"':
                found = _STRING.match(self._text, start)
                if found is None:
                    raise Malformed(_NO_STRING)
                return found.end()
            case "{" | "[" as bracket:
                end = self._brackets().get(start)
                if end is None:
                    raise Malformed(_NO_OBJECT if bracket == "{" else _NO_ARRAY)
                return end
        found = _TOKEN.match(self._text, start)
        if found is None or found.end() == start:
            raise Malformed(_UNKNOWN if start < len(self._text) else _NO_VALUE)
        return found.end()

    def _brackets(self) -> dict[int, int]:
        """Give where what opens at a place is closed; in one go, for that each level looks again takes too long."""
        if self._ends is None:
            self._ends = {}
            open_at: dict[str, list[int]] = {"}": [], "]": []}
            for found in _BRACKET.finditer(self._text):
                match found[0]:
                    case "{":
                        open_at["}"].append(found.start())
                    case "[":
                        open_at["]"].append(found.start())
                    case "}" | "]" as bracket if open_at[bracket]:
                        self._ends[open_at[bracket].pop()] = found.end()
        return self._ends


def _is_scalar(token: str) -> bool:
    return token in _LITERALS or token[0] in "-0123456789"


def _unescaped(raw: str) -> str | None:
    """Undo the escapes of a text; None when there is a wrong one."""
    if "\\" not in raw:
        return raw
    if any(wrong for wrong in _ESCAPE.findall(raw)):
        return None
    text = _ESCAPE.sub(lambda escape: str(json.loads(f'"{escape[0]}"')), raw)
    if not text.isascii() and _SURROGATE.search(text):
        try:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            return None
    return text
