"""From a LogQL text to its tree. Errors say where they are, in Loki's words."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NoReturn

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from observability.embedded import units
from observability.embedded.logql.ast import (
    Binary,
    Both,
    Compare,
    Condition,
    Drop,
    Either,
    Grouping,
    Json,
    Keep,
    LabelFilter,
    LabelFormat,
    LineFilter,
    LineFormat,
    Literal,
    Logfmt,
    LogQLError,
    LogQuery,
    Matcher,
    Matching,
    Metric,
    Query,
    RangeAggregation,
    Regexp,
    Stage,
    Template,
    Unwrap,
    Vector,
    VectorAggregation,
)
from observability.embedded.logql.texts import compile_pattern, read_path, read_template, unquote

MAX_LENGTH = 16_384  # Loki takes 131,072, which take this parser seconds
_MAX_EXPECTED = 4  # so many alternatives are still a help
_MAX_NAMED = 500  # of the parts of a query: enough for any that a person or a dashboard writes

_WITH_UNWRAP = {"avg_over_time", "sum_over_time", "min_over_time", "max_over_time", "stdvar_over_time"} | {
    "stddev_over_time",
    "quantile_over_time",
    "first_over_time",
    "last_over_time",
}
_WITH_GROUPING = _WITH_UNWRAP - {"sum_over_time"}
_MAY_UNWRAP = _WITH_UNWRAP | {"rate", "absent_over_time"}

_NAMES = {"$END": "$end"} | {name: name for name in ("IDENTIFIER", "STRING", "NUMBER", "RANGE", "DURATION", "BYTES")}


def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        LogQLError: It is none, or one that this backend cannot answer.
    """
    if len(text) > MAX_LENGTH:
        raise LogQLError(f"parse error : input size too long ({len(text)} > {MAX_LENGTH})")
    if not text:
        raise LogQLError("parse error : syntax error: unexpected $end")
    try:
        query: Query = _parser().parse(text)  # type: ignore[assignment]  # the transformer makes no lark.Tree
    except UnexpectedCharacters as error:
        _refuse_character(text, error)
    except UnexpectedToken as error:
        _refuse_token(text, error)
    except RecursionError:
        raise LogQLError("parse error : the query is nested too deeply") from None
    if isinstance(query, LogQuery):
        _check_log_query(query, text)
    return query


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """Parse what has to be a selector and nothing more.

    Raises:
        LogQLError: It is something else.
    """
    query = parse(text)
    if not isinstance(query, LogQuery) or query.stages:
        raise LogQLError("only label matchers are supported")
    return query.matchers


# --- errors ---


def _at(line: int, column: int, message: str) -> NoReturn:
    raise LogQLError.at(line, column, message) from None


def _end(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1


def _refuse_character(text: str, error: UnexpectedCharacters) -> NoReturn:
    rest = text[error.pos_in_stream :]
    if rest[0] in '"`':
        _at(error.line, error.column, "literal not terminated")
    if rest[0] == "[":
        _at(error.line, error.column, "missing closing ']' in duration")
    if rest[0] == "'" and not re.match(r"'(\\.|[^'\\])'", rest):
        _at(error.line, error.column, "invalid char literal")
    _at(error.line, error.column, f"syntax error: unexpected {'.' if rest[0] == '.' else 'IDENTIFIER'}")


def _refuse_token(text: str, error: UnexpectedToken) -> NoReturn:
    token: Token = error.token
    line, column = (token.line or 1, token.column or 1) if token.type != "$END" else _end(text)
    message = f"syntax error: unexpected {_NAMES.get(token.type) or str(token).lower()}"
    expected = sorted(_described(name) for name in error.accepts or ())
    if 0 < len(expected) <= _MAX_EXPECTED:
        message += f", expecting {' or '.join(expected)}"
    _at(line, column, message)


def _described(terminal: str) -> str:
    if terminal in _NAMES:
        return _NAMES[terminal]
    pattern = _parser().get_terminal(terminal).pattern
    return pattern.value if pattern.type == "str" else terminal.lower()


def _unsupported(token: Token) -> NoReturn:
    _at(token.line or 1, token.column or 1, f"{str(token).lower()} is not supported by the embedded backend")


# --- checks that are not the grammar's ---


def _check_log_query(query: LogQuery, text: str, *, unwraps: bool = False) -> None:
    for matcher in query.matchers:
        if matcher.operator in {"=~", "!~"}:
            compile_pattern(matcher.value)
    if not any(_asks_for_something(matcher) for matcher in query.matchers):
        raise LogQLError(
            "parse error : queries require at least one regexp or equality matcher that does not have an "
            'empty-compatible value. For instance, app=~".*" does not meet this requirement, but app=~".+" will'
        )
    if len(query.stages) > _MAX_NAMED:
        raise LogQLError(f"parse error : more than {_MAX_NAMED} stages are not supported by the embedded backend")
    if not unwraps and any(isinstance(stage, Unwrap) for stage in query.stages):
        found = re.search(r"\bunwrap\b", text, re.IGNORECASE)
        line, column = _end(text[: found.start()]) if found else (1, 1)
        _at(line, column, "syntax error: unexpected unwrap")


def _asks_for_something(matcher: Matcher) -> bool:
    match matcher.operator:
        case "=":
            return matcher.value != ""
        case "!=":
            return matcher.value == ""
        case "=~":
            return not compile_pattern(matcher.value).fullmatch("")
        case _:
            return bool(compile_pattern(matcher.value).fullmatch(""))


# --- the tree ---


def _times(tokens: list[Any], kind: str) -> list[Token]:
    return [token for token in tokens if isinstance(token, Token) and token.type == kind]


def _combine(parts: list[Any]) -> Condition:
    """Combine conditions with what stands between them, as Loki's parser does.

    `and` binds tighter than `or`; a comma, or nothing, makes the rest of the filter its right side.
    """
    either: list[Condition] = []
    current: Condition | None = None
    index = 0
    while index < len(parts):
        part = parts[index]
        if current is None:
            current = part
        elif not isinstance(part, Token) or part.type == "COMMA":
            current = Both(current, _combine(parts[index + 1 :] if isinstance(part, Token) else parts[index:]))
            break
        elif part.type == "OR":
            either.append(current)
            current = None
        else:
            index += 1
            current = Both(current, parts[index])
        index += 1
    if current is None:  # the grammar has a condition after each word
        raise LogQLError("parse error : syntax error: unexpected $end")
    for condition in reversed(either):
        current = Either(condition, current)
    return current


@v_args(inline=True)
class _Build(Transformer[Token, Query]):
    """Makes the tree while the parser runs, so that nothing is walked twice."""

    def parenthesis(self, inner: Any) -> Any:
        return inner

    def matcher(self, name: Token, operator: Token, value: Token) -> Matcher:
        return Matcher(str(name), str(operator), unquote(value))

    def selector(self, *matchers: Matcher) -> tuple[Matcher, ...]:
        return matchers

    def log_query(self, matchers: tuple[Matcher, ...], *stages: Stage) -> LogQuery:
        return LogQuery(matchers, stages)

    # stages

    def line_filter(self, operator: Token, *values: Token) -> LineFilter:
        texts = tuple(unquote(value) for value in values if value.type == "STRING")
        if operator in {"|~", "!~"}:
            for text in texts:
                try:
                    compile_pattern(text)
                except LogQLError as error:
                    said = str(error).removeprefix("parse error : ")
                    raise LogQLError(f"parse error : stage '{operator} \"{text}\"' : {said}") from None
        return LineFilter(str(operator), texts)

    def extraction(self, name: Token, _equals: Token | None = None, value: Token | None = None) -> tuple[str, str]:
        return str(name), str(name) if value is None else unquote(value)

    def json(self, _json: Token, *fields: Any) -> Json:
        pairs = [field for field in fields if not isinstance(field, Token)]
        return Json(tuple((name, read_path(name, expression)) for name, expression in pairs))

    def logfmt(self, _logfmt: Token, *parts: Any) -> Logfmt:
        flags = {str(flag) for flag in _times(list(parts), "FLAG")}
        fields = tuple(part for part in parts if not isinstance(part, Token))
        return Logfmt(fields, strict="--strict" in flags, keep_empty="--keep-empty" in flags)

    def regexp(self, _regexp: Token, pattern: Token) -> Regexp:
        text = unquote(pattern)
        if not compile_pattern(text).groupindex:
            raise LogQLError(f"parse error : stage '| regexp \"{text}\"' : at least one named capture must be supplied")
        return Regexp(text)

    def line_format(self, _line_format: Token, template: Token) -> LineFormat:
        return LineFormat(read_template(f"line_format {template}", unquote(template)))

    def assignment(self, name: Token, _equals: Token, value: Token) -> tuple[str, str | Template]:
        if value.type == "IDENTIFIER":
            return str(name), str(value)
        return str(name), read_template(f"label_format {name}={value}", unquote(value))

    def label_format(self, _label_format: Token, *parts: Any) -> LabelFormat:
        assignments = tuple(part for part in parts if not isinstance(part, Token))
        names = [name for name, _ in assignments]
        for name in names:
            if name == "__error__":
                raise LogQLError("parse error : stage '| label_format' : __error__ cannot be formatted")
            if names.count(name) > 1:
                raise LogQLError(
                    f"parse error : stage '| label_format' : multiple label name '{name}' not allowed in a single "
                    "format operation"
                )
        return LabelFormat(assignments)

    def named(self, label: Token | Matcher) -> str | Matcher:
        return self._checked(label) if isinstance(label, Matcher) else str(label)

    def drop(self, _drop: Token, *labels: Any) -> Drop:
        return Drop(tuple(label for label in labels if not isinstance(label, Token)))

    def keep(self, _keep: Token, *labels: Any) -> Keep:
        return Keep(tuple(label for label in labels if not isinstance(label, Token)))

    def unwrap(self, _unwrap: Token, *tokens: Token) -> Unwrap:
        return Unwrap(str(tokens[-1]), str(tokens[0]).lower() if tokens[0].type == "CONVERSION" else "")

    def label_filter(self, *parts: Any) -> LabelFilter | Condition:
        # A filter in parentheses is a part of another one.
        return LabelFilter(_combine([part.condition if isinstance(part, LabelFilter) else part for part in parts]))

    def compare_text(self, matcher: Matcher) -> Matcher:
        return self._checked(matcher)

    def compare_number(self, name: Token, operator: Token, value: float) -> Compare:
        return Compare(str(name), str(operator), value, "number")

    def compare_duration(self, name: Token, operator: Token, value: Token) -> Compare:
        return Compare(str(name), str(operator), self._duration(value) / 1e9, "duration")

    def compare_bytes(self, name: Token, operator: Token, value: Token) -> Compare:
        return Compare(str(name), str(operator), units.size(value), "bytes")

    def number(self, *tokens: Token) -> float:
        value = float(tokens[-1])
        return -value if tokens[0].type == "SUB" else value

    # metrics

    def literal(self, value: float) -> Literal:
        return Literal(value)

    def vector(self, _vector: Token, value: float) -> Vector:
        return Vector(value)

    def labels(self, *tokens: Token) -> tuple[str, ...]:
        return tuple(str(token) for token in tokens if token.type == "IDENTIFIER")

    def grouping(self, word: Token, labels: tuple[str, ...]) -> Grouping:
        return Grouping(labels, without=word.type == "WITHOUT")

    def modifier(self, *parts: Any) -> tuple[bool, Matching]:
        as_bool = bool(_times(list(parts), "BOOL"))
        on = bool(_times(list(parts), "ON"))
        labels = next((part for part in parts if isinstance(part, tuple)), ())
        return as_bool, Matching(labels, on=on)

    def binary(self, left: Metric, operator: Token, modifier: tuple[bool, Matching], right: Metric) -> Metric:
        name = str(operator).lower()
        if name in {"or", "and", "unless"}:
            for side, leg in (("left", left), ("right", right)):
                if isinstance(leg, Literal):
                    raise LogQLError(
                        f"parse error : unexpected literal for {side} leg of logical/set binary operation ({name}): "
                        f"{leg.value:f}"
                    )
        return Binary(name, left, right, as_bool=modifier[0], matching=modifier[1])

    def offset(self, _offset: Token, duration: Token) -> int:
        return self._duration(duration)

    def log_range(self, matchers: tuple[Matcher, ...], *parts: Any) -> tuple[LogQuery, int, int]:
        (brackets,) = _times(list(parts), "RANGE")
        try:
            span = units.range_ns(brackets[1:-1].strip())
        except ValueError as error:
            _at(brackets.line or 1, brackets.column or 1, str(error))
        offset = next((part for part in parts if isinstance(part, int)), 0)
        stages = tuple(part for part in parts if not isinstance(part, Token | int))
        return LogQuery(matchers, stages), span, offset

    def range_aggregation(self, operation: Token, *parts: Any) -> RangeAggregation:
        name = str(operation).lower()
        query, span, offset = next(part for part in parts if isinstance(part, tuple))
        grouping = next((part for part in parts if isinstance(part, Grouping)), None)
        numbers = _times(list(parts), "NUMBER")
        _check_log_query(query, "", unwraps=True)
        _check_range_aggregation(name, query, grouping, numbers)
        parameter = float(numbers[0]) if numbers else None
        return RangeAggregation(name, query, span, offset, parameter, grouping)

    def vector_aggregation(self, operation: Token, *parts: Any) -> VectorAggregation:
        name = str(operation).lower()
        grouping = next((part for part in parts if isinstance(part, Grouping)), None)
        numbers = _times(list(parts), "NUMBER")
        inner = next(part for part in parts if not isinstance(part, Token | Grouping))
        parameter = None
        if name in {"topk", "bottomk"}:
            if not numbers:
                raise LogQLError(f"parse error : parameter required for operation {name}")
            if not numbers[0].isdigit():
                raise LogQLError(f"parse error : invalid parameter {name}({numbers[0]},")
            parameter = int(numbers[0])
            if parameter <= 0:
                raise LogQLError(f"parse error : invalid parameter (must be greater than 0) {name}({numbers[0]}")
        elif numbers:
            raise LogQLError(f"parse error : unsupported parameter for operation {name}({numbers[0]},")
        if name in {"sort", "sort_desc"} and grouping:
            raise LogQLError(f"parse error : grouping not allowed for {name} aggregation")
        if isinstance(inner, Literal):
            raise LogQLError(f"parse error : {name} needs a vector, not a number")
        return VectorAggregation(name, inner, parameter, grouping)

    def _checked(self, matcher: Matcher) -> Matcher:
        if matcher.operator in {"=~", "!~"}:
            compile_pattern(matcher.value)
        return matcher

    def _duration(self, token: Token) -> int:
        try:
            return units.duration_ns(str(token))
        except ValueError as error:
            _at(token.line or 1, token.column or 1, str(error))


def _check_range_aggregation(name: str, query: LogQuery, grouping: Grouping | None, numbers: list[Token]) -> None:
    unwraps = [index for index, stage in enumerate(query.stages) if isinstance(stage, Unwrap)]
    if unwraps and name not in _MAY_UNWRAP:
        raise LogQLError(f"parse error : invalid aggregation {name} with unwrap")
    if not unwraps and name in _WITH_UNWRAP:
        raise LogQLError(f"parse error : invalid aggregation {name} without unwrap")
    after = query.stages[unwraps[0] + 1 :] if unwraps else ()
    if any(not isinstance(stage, LabelFilter) for stage in after):
        raise LogQLError("parse error : syntax error: after unwrap only label filters may follow")
    if grouping and name not in _WITH_GROUPING:
        raise LogQLError(f"parse error : grouping not allowed for {name} aggregation")
    if name == "quantile_over_time" and not numbers:
        raise LogQLError(f"parse error : parameter required for operation {name}")
    if name != "quantile_over_time" and numbers:
        raise LogQLError(f"parse error : parameter {numbers[0]} not supported for operation {name}")


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark.open(
        "grammar.lark",
        rel_to=__file__,
        parser="lalr",
        lexer="basic",  # a keyword is one wherever it stands, as in Loki
        transformer=_Build(),
        maybe_placeholders=False,
        lexer_callbacks={"UNSUPPORTED": _unsupported},
        regex=False,
    )
