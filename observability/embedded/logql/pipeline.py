"""The stages of a query, made into functions that look at one line at a time."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from observability.embedded import units
from observability.embedded.logql import jsonline, logfmt
from observability.embedded.logql.ast import (
    Both,
    Compare,
    Condition,
    Drop,
    Either,
    Json,
    Keep,
    LabelFilter,
    LabelFormat,
    LineFilter,
    LineFormat,
    Logfmt,
    Matcher,
    Regexp,
    Stage,
    Template,
    Unwrap,
)
from observability.embedded.logql.line import ERROR, ERROR_DETAILS, Line
from observability.embedded.logql.texts import compile_pattern

_NO_TEXT = "\ufffd"
_INVALID = re.compile(r"[^A-Za-z0-9_]")
_CACHED_KEY = 64
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
_READERS: Mapping[str, Callable[[str], float]] = {
    "number": units.number,
    "duration": lambda text: units.duration_ns(text) / 1e9,
    "bytes": units.size,
}
_CONVERSIONS: Mapping[str, Callable[[str], float]] = {
    "": units.number,
    "bytes": units.size,
    "duration": _READERS["duration"],
    "duration_seconds": _READERS["duration"],
}


@dataclass(frozen=True)
class Wants:
    """What is looked at of a line. What is not wanted need not be read, and may be empty."""

    text: bool = True
    labels: frozenset[str] | None = None
    """None for all."""
    in_order: bool = True


def wants(stages: Iterable[Stage], needed: frozenset[str] | None) -> Wants:
    """Tell what a pipeline, and who uses the labels `needed` afterwards, looks at."""
    names: set[str] | None = None if needed is None else set(needed)
    text = False
    for stage in stages:
        match stage:
            case LineFilter():
                text = True
            case LabelFilter(condition) if names is not None:
                names |= _names_in(condition)
            case Drop():
                pass
            case Unwrap(name) if names is not None:
                names.add(name)
            case _:  # which labels a parser finds depends on those that there are
                text, names = True, None
    return Wants(text, None if names is None else frozenset(names))


def _names_in(condition: Condition) -> set[str]:
    match condition:
        case Both(left, right) | Either(left, right):
            return _names_in(left) | _names_in(right)
        case Matcher(name=name) | Compare(name=name):
            return {name}


Step = Callable[[Line], bool]
"""Changes a line, and tells whether it stays."""


def without_parsers(stages: tuple[Stage, ...], needed: frozenset[str] | None) -> tuple[Stage, ...]:
    """Leave the parsers out when neither a stage nor anybody afterwards looks at a label.

    So does Loki, and it shows: a line that is no JSON is no error in `sum(count_over_time(... | json [1m]))`.
    """
    if needed is None or needed or any(not isinstance(stage, LineFilter | Json | Logfmt) for stage in stages):
        return stages
    return tuple(stage for stage in stages if isinstance(stage, LineFilter))


def compile_stages(stages: Iterable[Stage]) -> list[Step]:
    """Make the steps of a pipeline."""
    stages = tuple(stages)
    steps = [_step(stage) for stage in stages]
    # The value is no label of the series; but until here a filter may look at it.
    steps += [_drop(Drop((stage.name,))) for stage in stages if isinstance(stage, Unwrap)]
    return steps


def _step(stage: Stage) -> Step:  # noqa: C901, PLR0911  # one case for each kind
    match stage:
        case LineFilter():
            return _line_filter(stage)
        case Json():
            return _json_fields(stage) if stage.fields else _parse_json
        case Logfmt():
            return _logfmt_fields(stage) if stage.fields else _logfmt(stage)
        case Regexp():
            return _regexp(stage)
        case LabelFilter():
            return _condition(stage.condition)
        case LineFormat():
            return _line_format(stage)
        case LabelFormat():
            return _label_format(stage)
        case Drop():
            return _drop(stage)
        case Keep():
            return _keep(stage)
        case Unwrap():
            return _unwrap(stage)
        case _:
            assert_never(stage)


# --- filters ---


def _line_filter(stage: LineFilter) -> Step:
    values = stage.values
    wanted = stage.operator in {"|=", "|~"}
    if stage.operator in {"|=", "!="}:
        if len(values) == 1:
            (only,) = values
            return lambda line: (only in line.text) is wanted
        return lambda line: any(value in line.text for value in values) is wanted
    searches = [compile_pattern(value).search for value in values]
    return lambda line: any(search(line.text) is not None for search in searches) is wanted


def text_test(matcher: Matcher) -> Callable[[str], bool]:
    """Make the test of a label's value; a label that is not there has the value ''."""
    value = matcher.value
    match matcher.operator:
        case "=":
            return lambda text: text == value
        case "!=":
            return lambda text: text != value
        case "=~":
            fullmatch = compile_pattern(value).fullmatch
            return lambda text: fullmatch(text) is not None
        case _:
            fullmatch = compile_pattern(value).fullmatch
            return lambda text: fullmatch(text) is None


def _condition(condition: Condition) -> Step:
    match condition:
        case Matcher(name=name):
            test = text_test(condition)
            return lambda line: test(line.get(name) or "")
        case Compare():
            return _compare(condition)
        case Both(left, right):
            first, second = _condition(left), _condition(right)
            return lambda line: first(line) and second(line)
        case Either(left, right):
            first, second = _condition(left), _condition(right)
            return lambda line: first(line) or second(line)
        case _:
            assert_never(condition)


def _compare(condition: Compare) -> Step:
    name, wanted = condition.name, condition.value
    compare, read = _COMPARISONS[condition.operator], _READERS[condition.unit]

    def step(line: Line) -> bool:
        text = line.get(name)
        if text is None:
            return False
        if line.error:
            return True  # only a test of text removes a line with an error, so that it is seen
        try:
            return compare(read(text), wanted)
        except (ValueError, OverflowError) as error:
            line.fail("LabelFilterErr", str(error))
            return True

    return step


# --- parsers ---


def _label_name(key: str) -> str:
    return _label_name_of(key) if len(key) > _CACHED_KEY else _cached_label_name(key)


def _label_name_of(key: str) -> str:
    key = _INVALID.sub("_", key.strip())
    return f"_{key}" if key[:1].isdigit() else key


# The same few names are in every line; a long one is somebody's data.
_cached_label_name = lru_cache(maxsize=4096)(_label_name_of)


def _parse_json(line: Line) -> bool:
    fields, problem = jsonline.fields(line.text)
    for path, value in fields:
        if name := _label_name(path):
            line.extract(name, value)
    if problem:
        line.fail("JSONParserErr", problem)
    return True


def json_labels(text: str) -> dict[str, str]:
    """Give the labels that `| json` finds in a line without any other."""
    line = Line(0, text, {}, {})
    _parse_json(line)
    return line.parsed


def _json_fields(stage: Json) -> Step:
    def step(line: Line) -> bool:
        if not line.text:
            return True
        if line.text[0] not in '{["':
            line.fail("JSONParserErr")
            return True
        found, problem = jsonline.at_paths(line.text, [path for _, path in stage.fields])
        if problem:
            line.fail("JSONParserErr", problem)
        for (name, _), value in zip(stage.fields, found, strict=True):
            if value is not None:
                line.extract(name, value, replace=True)
            elif line.get(name) is None:
                line.parsed[name] = ""
        return True

    return step


def _pairs(stage: Logfmt, line: Line) -> Iterator[tuple[str, str]]:
    try:
        for key, value in logfmt.pairs(line.text, strict=stage.strict):
            if name := _label_name(key):
                yield name, value
    except logfmt.Malformed as error:
        line.fail("LogfmtParserErr", str(error))


def _logfmt(stage: Logfmt) -> Step:
    def step(line: Line) -> bool:
        for name, value in _pairs(stage, line):
            if value or stage.keep_empty:
                line.extract(name, value.replace(_NO_TEXT, " "))
        return True

    return step


def _logfmt_fields(stage: Logfmt) -> Step:
    def step(line: Line) -> bool:
        found = dict(_pairs(stage, line))
        for name, key in stage.fields:
            if key in found:
                line.extract(name, "" if _NO_TEXT in found[key] else found[key], replace=True)
            elif line.get(name) is None:
                line.parsed[name] = ""
        return True

    return step


def _regexp(stage: Regexp) -> Step:
    search = compile_pattern(stage.pattern).search

    def step(line: Line) -> bool:
        found = search(line.text)
        if found:
            for name, value in found.groupdict().items():
                line.extract(name, value or "")
        return True

    return step


# --- labels and texts ---


def _render(template: Template, line: Line) -> str:
    texts = []
    for part in template.parts:
        if isinstance(part, str):
            texts.append(part)
        elif part[0] == "__line__":
            texts.append(line.text)
        else:
            texts.append("" if part[0] in {ERROR, ERROR_DETAILS} else line.get(part[0]) or "")
    return "".join(texts)


def _line_format(stage: LineFormat) -> Step:
    def step(line: Line) -> bool:
        line.text = _render(stage.template, line)
        return True

    return step


def _label_format(stage: LabelFormat) -> Step:
    def step(line: Line) -> bool:
        for name, source in stage.assignments:
            if isinstance(source, Template):
                line.set(name, _render(source, line))
            elif (value := line.get(source)) is not None:
                line.set(name, value)
                line.delete(source)
        return True

    return step


def _named(labels: Iterable[str | Matcher]) -> list[tuple[str, Callable[[str], bool] | None]]:
    return [(label, None) if isinstance(label, str) else (label.name, text_test(label)) for label in labels]


def _drop(stage: Drop) -> Step:
    named = _named(stage.labels)

    def step(line: Line) -> bool:
        for name, test in named:
            value = line.get(name)
            if value is not None and (test is None or test(value)):
                line.delete(name)
        return True

    return step


def _keep(stage: Keep) -> Step:
    named = _named(stage.labels)

    def step(line: Line) -> bool:
        kept = {name for name, test in named if (value := line.get(name)) is not None and (test is None or test(value))}
        line.stream = {name: value for name, value in line.stream.items() if name in kept}
        line.metadata = {name: value for name, value in line.metadata.items() if name in kept}
        line.parsed = {name: value for name, value in line.parsed.items() if name in kept}
        return True

    return step


def _unwrap(stage: Unwrap) -> Step:
    read = _CONVERSIONS[stage.conversion]

    def step(line: Line) -> bool:
        text = line.get(stage.name)
        if text is None:
            return False
        try:
            line.value = read(text)
        except (ValueError, OverflowError) as error:
            line.value = 0.0
            line.fail("SampleExtractionErr", str(error))
        return True

    return step
