"""The parameters of Loki's HTTP API, read as Loki reads them, with its words for what is wrong."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from flask import request

from observability.embedded import units
from observability.embedded.logql.parse import parse_selector

if TYPE_CHECKING:
    from observability.embedded.logql.ast import Matcher

MAX_LINES = 5000
MAX_POINTS = 11_000
MAX_RANGE_NS = 721 * 3600 * 1_000_000_000
"""Loki's limits of an answer and of a query's time range (30d1h)."""

_DEFAULT_LIMIT = 100
_DEFAULT_SINCE_NS = 3600 * 1_000_000_000
_SECONDS_DIGITS = 10  # a whole number of so many digits is in seconds, a longer one in nanoseconds
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_SECOND = 1_000_000_000


class Refused(Exception):
    """The request cannot be answered; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def is_any(selector: str) -> bool:
    """Whether it means all streams, where Loki allows that."""
    return selector.replace(" ", "") == "{}"


def selector_of_group(text: str) -> tuple[Matcher, ...]:
    """Read one of several selectors.

    Raises:
        Refused: That cannot be answered.
    """
    if is_any(text):
        raise Refused(400, f"0 matchers in group: {text}")
    return parse_selector(text)


def read_time_range() -> tuple[int, int]:
    """Read `start` and `end`, or `since`.

    Raises:
        Refused: That cannot be answered.
    """
    now = time.time_ns()
    end = read_time("end") if request.values.get("end") else now
    if request.values.get("start"):
        start = read_time("start")
    else:
        since = _DEFAULT_SINCE_NS
        if text := request.values.get("since"):
            try:
                since = units.range_ns(text)
            except ValueError as error:
                raise Refused(400, f"could not parse 'since' parameter: {error}") from None
        start = min(end, now) - since
    if end < start:
        raise Refused(400, "end timestamp must not be before or equal to start time")
    check_length(end - start)
    return start, end


def check_length(nanoseconds: int) -> None:
    """Refuse a time range that is too long.

    Raises:
        Refused: That cannot be answered.
    """
    if nanoseconds > MAX_RANGE_NS:
        length = units.format_duration(nanoseconds)
        raise Refused(400, f"the query time range exceeds the limit (query length: {length}, limit: 30d1h)")


def read_time(name: str) -> int:
    """Read a time as Loki does: seconds with a point or of at most ten digits, nanoseconds, or RFC 3339.

    Raises:
        Refused: It is none.
    """
    text = request.values[name]
    try:
        if found := _RFC3339.fullmatch(text):
            whole, fraction, zone = found.groups()
            seconds = int(datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp())
            value = seconds * _SECOND + int((fraction or "").ljust(9, "0"))
        elif "." in text:
            value = int(units.number(text) * 1_000) * 1_000_000
        else:
            if not re.fullmatch(r"[-+]?\d{1,19}", text):
                raise ValueError(text)
            value = int(text) * (_SECOND if len(text) <= _SECONDS_DIGITS else 1)
    except (ValueError, OverflowError):
        problem = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise Refused(400, problem if name == "time" else f"could not parse '{name}' parameter: {problem}") from None
    if not -(2**62) < value < 2**62:
        raise Refused(400, f"could not parse '{name}' parameter: value out of range")
    return value


def read_duration(name: str) -> int | None:
    """Read a duration: a number of seconds, or `1m30s`.

    Raises:
        Refused: It is none.
    """
    text = request.values.get(name)
    if not text:
        return None
    try:
        value = int(units.number(text) * _SECOND) if re.fullmatch(r"[-+.\deE]+", text) else units.range_ns(text)
    except (ValueError, OverflowError):
        raise Refused(400, f'cannot parse "{text}" to a valid duration') from None
    if abs(value) > MAX_RANGE_NS:
        raise Refused(400, f'cannot parse "{text}" to a valid duration. It overflows int64')
    return value


def read_limit() -> int:
    """Read how many lines are wanted at most.

    Raises:
        Refused: That cannot be answered.
    """
    text = request.values.get("limit")
    if not text:
        return _DEFAULT_LIMIT
    if not re.fullmatch(r"[-+]?\d{1,18}", text):
        raise Refused(400, f'strconv.Atoi: parsing "{text}": invalid syntax')
    limit = int(text)
    if limit <= 0:
        raise Refused(400, "limit must be a positive value")
    if limit > MAX_LINES:
        raise Refused(
            400,
            f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {MAX_LINES})",
        )
    return limit
