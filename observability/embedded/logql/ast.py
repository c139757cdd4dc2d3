"""What a LogQL query is, once it is parsed: plain values that say what to do, and nothing of how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


class LogQLError(ValueError):
    """The query is wrong, or asks for what is not supported. The message is for the one who wrote it."""

    @classmethod
    def at(cls, line: int, column: int, message: str) -> Self:
        """Say where it is wrong, in Loki's words."""
        return cls(f"parse error at line {line}, col {column}: {message}")


@dataclass(frozen=True)
class Matcher:
    """A label and what it has to be: `=`, `!=`, `=~` or `!~`; patterns are anchored."""

    name: str
    operator: str
    value: str


# --- the stages of a pipeline ---


@dataclass(frozen=True)
class LineFilter:
    """`|=`, `!=`, `|~` or `!~`: one of the values is in the line, or none is."""

    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Json:
    """`| json`, or with the paths of what to extract by label."""

    fields: tuple[tuple[str, tuple[str | int, ...]], ...] = ()


@dataclass(frozen=True)
class Logfmt:
    """`| logfmt`, or with the keys of what to extract by label."""

    fields: tuple[tuple[str, str], ...] = ()
    strict: bool = False
    keep_empty: bool = False


@dataclass(frozen=True)
class Regexp:
    """`| regexp "(?P<name>...)"`."""

    pattern: str


@dataclass(frozen=True)
class Compare:
    """A label compared with a number; `unit` says how the label is read: `number`, `duration` or `bytes`."""

    name: str
    operator: str
    value: float
    unit: str


@dataclass(frozen=True)
class Both:
    """Both conditions hold."""

    left: Condition
    right: Condition


@dataclass(frozen=True)
class Either:
    """At least one of the conditions holds."""

    left: Condition
    right: Condition


Condition = Matcher | Compare | Both | Either


@dataclass(frozen=True)
class LabelFilter:
    """`| level="error" and duration > 1s`."""

    condition: Condition


@dataclass(frozen=True)
class Template:
    """Text with labels in it: strings, and names of labels in tuples of one."""

    parts: tuple[str | tuple[str], ...]


@dataclass(frozen=True)
class LineFormat:
    """`| line_format "{{.event}}"`."""

    template: Template


@dataclass(frozen=True)
class LabelFormat:
    """`| label_format new=old, text="{{.level}}!"`: a string is the name of a label to rename."""

    assignments: tuple[tuple[str, str | Template], ...]


@dataclass(frozen=True)
class Drop:
    """`| drop a, b="x"`."""

    labels: tuple[str | Matcher, ...]


@dataclass(frozen=True)
class Keep:
    """`| keep a, b="x"`."""

    labels: tuple[str | Matcher, ...]


@dataclass(frozen=True)
class Unwrap:
    """`| unwrap duration(took)`: the label whose value is the sample's."""

    name: str
    conversion: str = ""


Stage = LineFilter | Json | Logfmt | Regexp | LabelFilter | LineFormat | LabelFormat | Drop | Keep | Unwrap


@dataclass(frozen=True)
class LogQuery:
    """`{service_name="order-service"} |= "error" | json`."""

    matchers: tuple[Matcher, ...]
    stages: tuple[Stage, ...] = ()


# --- metrics ---


@dataclass(frozen=True)
class Grouping:
    """`by (a, b)`, or `without (a, b)`."""

    labels: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True)
class RangeAggregation:
    """`rate({...} [5m] offset 1h)`; the times are in nanoseconds."""

    operation: str
    query: LogQuery
    range_ns: int
    offset_ns: int = 0
    parameter: float | None = None
    grouping: Grouping | None = None


@dataclass(frozen=True)
class VectorAggregation:
    """`sum by (a) (...)`."""

    operation: str
    inner: Metric
    parameter: int | None = None
    grouping: Grouping | None = None


@dataclass(frozen=True)
class Matching:
    """How a binary operation pairs its series: by all labels, `on` these, or `ignoring` them."""

    labels: tuple[str, ...] = ()
    on: bool = False


@dataclass(frozen=True)
class Binary:
    """`a / b`, `a > bool 5`, `a or vector(0)`."""

    operator: str
    left: Metric
    right: Metric
    as_bool: bool = False
    matching: Matching = Matching()


@dataclass(frozen=True)
class Literal:
    """A number."""

    value: float


@dataclass(frozen=True)
class Vector:
    """`vector(0)`: a number as a series without labels."""

    value: float


Metric = RangeAggregation | VectorAggregation | Binary | Literal | Vector
Query = LogQuery | Metric
