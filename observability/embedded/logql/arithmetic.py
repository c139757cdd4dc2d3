"""What LogQL computes with numbers: of a window's samples, of several series at one time, of two values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

Compute = Callable[["array[float]", int, int, "float | None"], float]


def _count(_values: array[float], low: int, high: int, _parameter: float | None) -> float:
    return float(high - low)


def _total(values: array[float], low: int, high: int, _parameter: float | None) -> float:
    return float(sum(values[low:high]))


def _mean(values: array[float], low: int, high: int, _parameter: float | None) -> float:
    # As Loki: the running mean, which differs from sum / count in the last digits.
    mean = 0.0
    for count, value in enumerate(values[low:high], start=1):
        mean += (value - mean) / count
    return mean


def _variance(values: array[float], low: int, high: int, _parameter: float | None) -> float:
    return _spread(values[low:high])


def _spread(values: Iterable[float]) -> float:
    mean = total = 0.0
    count = 0
    for count, value in enumerate(values, start=1):  # the last count is wanted
        delta = value - mean
        mean += delta / count
        total += delta * (value - mean)
    return total / count


def _quantile(values: array[float], low: int, high: int, parameter: float | None) -> float:
    share = parameter or 0.0
    if share < 0:
        return -math.inf
    if share > 1:
        return math.inf
    ordered = sorted(values[low:high])
    rank = share * (len(ordered) - 1)
    lower = max(0, math.floor(rank))
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - math.floor(rank)
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


def per_second(operation: str, range_ns: int) -> Compute:
    """Give what computes an operation of `OVER_TIME` as a rate."""
    compute, seconds = OVER_TIME[operation], range_ns / 1e9
    return lambda values, low, high, parameter: compute(values, low, high, parameter) / seconds


OVER_TIME: Mapping[str, Compute] = {
    "count_over_time": _count,
    "rate": _count,
    "bytes_over_time": _total,
    "bytes_rate": _total,
    "sum_over_time": _total,
    "avg_over_time": _mean,
    "min_over_time": lambda values, low, high, _: min(values[low:high]),
    "max_over_time": lambda values, low, high, _: max(values[low:high]),
    "stdvar_over_time": _variance,
    "stddev_over_time": lambda values, low, high, _: math.sqrt(_variance(values, low, high, None)),
    "quantile_over_time": _quantile,
    "first_over_time": lambda values, low, _high, _: values[low],
    "last_over_time": lambda values, _low, high, _: values[high - 1],
}

OF_SERIES: Mapping[str, Callable[[list[float]], float]] = {
    "sum": lambda values: float(sum(values)),
    "avg": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
    "stdvar": _spread,
    "stddev": lambda values: math.sqrt(_spread(values)),
}


def _divide(left: float, right: float) -> float:
    return math.nan if right == 0 else left / right  # Loki's: by zero is no number, not infinity


def _modulo(left: float, right: float) -> float:
    return math.nan if right == 0 or math.isinf(left) else math.fmod(left, right)


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return math.inf if left > 0 or right % 2 == 0 else -math.inf
    except ValueError:
        return math.nan if left else math.inf


COMPARING = {"==", "!=", ">", ">=", "<", "<="}
OPERATIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
    "%": _modulo,
    "^": _power,
    "==": lambda left, right: float(left == right),
    "!=": lambda left, right: float(left != right),
    ">": lambda left, right: float(left > right),
    ">=": lambda left, right: float(left >= right),
    "<": lambda left, right: float(left < right),
    "<=": lambda left, right: float(left <= right),
}
