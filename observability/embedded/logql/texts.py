"""Texts in a query that have a grammar of their own: quoted ones, patterns, paths in JSON, templates."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import re2

from observability.embedded.logql.ast import LogQLError, Template

if TYPE_CHECKING:
    from lark import Token

_PATTERN_ERRORS = {  # RE2's words, and those of Go's version of it, which Loki uses
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
}

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SURROGATES = range(0xD800, 0xE000)  # no characters
_PATH = re.compile(r'\.?([A-Za-z_][\w-]*)|\[(\d+)\]|\["((?:\\.|[^"\\])*)"\]')
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.([A-Za-z_]\w*)|(__line__)")


def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression for matching in linear time, as Loki does.

    Raises:
        LogQLError: It is none.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        detail = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        what, _, where = detail.partition(": ")
        raise LogQLError(f"parse error : error parsing regexp: {_PATTERN_ERRORS.get(what, what)}: `{where}`") from None


def unquote(token: Token) -> str:
    """Give what a text in quotes says.

    Raises:
        LogQLError: An escape in it is none.
    """
    text = str(token)
    if text[0] == "`":
        return text[1:-1]

    def unescape(found: re.Match[str]) -> str:
        what = found[1]
        if what[0] in "xuU" and len(what) > 1:
            return _character(token, int(what[1:], 16))
        if what[0] in "01234567" and len(what) > 1:
            return _character(token, int(what, 8))
        if what not in _ESCAPES or what == "'":
            raise LogQLError.at(token.line or 1, token.column or 1, "invalid char escape")
        return _ESCAPES[what]

    return _ESCAPE.sub(unescape, text[1:-1]) if "\\" in text else text[1:-1]


def _character(token: Token, code: int) -> str:
    if code > sys.maxunicode or code in _SURROGATES:
        raise LogQLError.at(token.line or 1, token.column or 1, "invalid char escape")
    return chr(code)


def read_path(label: str, expression: str) -> tuple[str | int, ...]:
    """Read the expression of `json label="expression"`.

    Raises:
        LogQLError: It is none.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(expression):
        found = _PATH.match(expression, position)
        if (
            not found
            or (position == 0 and expression[0] == ".")
            or (found[1] and position and expression[position] != ".")
        ):
            raise LogQLError(
                f"parse error : stage '| json {label}=\"{expression}\"' : cannot parse expression [{expression}]: "
                f"syntax error at col {position + 1}"
            )
        name, index, quoted = found.groups()
        steps.append(name if name is not None else int(index) if index is not None else re.sub(r"\\(.)", r"\1", quoted))
        position = found.end()
    if not steps:
        raise LogQLError(f"parse error : stage '| json {label}=\"\"' : cannot parse expression []: syntax error")
    return tuple(steps)


def read_template(stage: str, text: str) -> Template:
    """Read the template of `line_format` or `label_format`.

    Raises:
        LogQLError: It is none, or has more in it than labels.
    """
    parts: list[str | tuple[str]] = []
    position = 0
    for found in _ACTION.finditer(text):
        parts.append(text[position : found.start()])
        field = _FIELD.fullmatch(found[1])
        if not field:
            raise LogQLError(
                f"parse error : stage '| {stage}' : {found[0]} is not supported by the embedded backend, which knows "
                "{{.label}} and {{__line__}} only"
            )
        if "{{-" in found[0] or "-}}" in found[0]:
            raise LogQLError(f"parse error : stage '| {stage}' : {found[0]} is not supported by the embedded backend")
        parts.append((field[1] or field[2],))
        position = found.end()
    rest = text[position:]
    if "{{" in rest:
        raise LogQLError(f"parse error : stage '| {stage}' : invalid line template: template: line:1: unclosed action")
    parts.append(rest)
    return Template(tuple(part for part in parts if part))
