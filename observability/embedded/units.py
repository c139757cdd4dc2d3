"""Numbers as Loki and Jaeger read and write them: durations, sizes, floats."""

import math
import re
from decimal import Decimal

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
    "w": 7 * 86_400 * 1_000_000_000,
    "y": 365 * 86_400 * 1_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w|y)")
_DURATION = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h|d|w|y))+")
_RANGE_PART = re.compile(r"(\d+)([^\d]+)")
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|infinity)|nan", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_MAX_NS = 2**63 - 1
_PLAIN_FROM, _PLAIN_BELOW = 1e-6, 1e21  # between these, Go's JSON writes a float without an exponent


def duration_ns(text: str) -> int:
    """Read a duration such as `1h30m`, `-5m`, `1.5s`, `0`.

    Raises:
        ValueError: It is none.
    """
    if text in {"0", "+0", "-0"}:
        return 0
    if not _DURATION.fullmatch(text):
        raise ValueError(f'time: invalid duration "{text}"')
    total = sum(int(Decimal(number) * _NANOSECONDS[unit]) for number, unit in _PART.findall(text))
    if total > _MAX_NS:
        raise ValueError("duration out of range")
    return -total if text.startswith("-") else total


def range_ns(text: str) -> int:
    """Read what stands in a range's brackets: whole numbers with units, the larger units first.

    Raises:
        ValueError: It is none.
    """
    if text == "0":
        return 0
    if not text:
        raise ValueError("empty duration string")
    parts = _RANGE_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'not a valid duration string: "{text}"')
    total, last = 0, math.inf
    for number, unit in parts:
        if unit not in {"y", "w", "d", "h", "m", "s", "ms"}:
            raise ValueError(f'unknown unit "{unit}" in duration "{text}"')
        if _NANOSECONDS[unit] >= last:
            raise ValueError(f'not a valid duration string: "{text}"')
        last = _NANOSECONDS[unit]
        total += int(number) * last
    if total > _MAX_NS:
        raise ValueError("duration out of range")
    return total


def size(text: str) -> float:
    """Read a size such as `5KB` (5,000) or `1MiB` (1,048,576).

    Raises:
        ValueError: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
    number, prefix, binary = found.groups()
    base = 1024 if binary else 1000
    return float(number) * float(base ** ("kmgtpe".index(prefix.lower()) + 1 if prefix else 0))


def number(text: str) -> float:
    """Read a float as Go does: without spaces and underscores.

    Raises:
        ValueError: It is none.
    """
    if not _FLOAT.fullmatch(text):
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
    return float(text)


def format_number(value: float) -> str:
    """Write a float as Loki does: the shortest digits that mean it, never an exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 2**53:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def format_json_number(value: float) -> str:
    """Write a float as Go's JSON does: `1`, `0.000001`, `1e-7`, `1e+21`.

    Raises:
        ValueError: It is not finite.
    """
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    if value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    digits, _, exponent = repr(value).partition("e")
    return f"{digits}e{int(exponent):+d}"


def format_duration(nanoseconds: int) -> str:
    """Write a duration as Go does: `1h2m3.5s`, `400µs`."""
    sign, left = "-" if nanoseconds < 0 else "", abs(nanoseconds)
    for unit in ("ns", "µs", "ms"):
        if 0 < left < 1000 * _NANOSECONDS[unit]:
            return f"{sign}{Decimal(left) / _NANOSECONDS[unit]:f}{unit}"
    minutes, left = divmod(left, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    above = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{above}{Decimal(left) / _NANOSECONDS['s']:f}s"
