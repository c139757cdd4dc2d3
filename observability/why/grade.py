"""Rates an answer against the known true cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOPS = (1, 3)


def grade(answer: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, bool | None]:
    """Compare an answer with the truth.

    Args:
        answer: The JSON of `make why`, or of any other method: `causes`, the likeliest first, each with `service`,
            `operation` and `attributes` (`key`, `value`).
        truth: `service`, `operation` and `attribute` (`key`, and `value` if only one value is right; or the text
            `key=value`). Each may be a list of right answers, or be left out. A truth without a `service` means that
            nothing is wrong, so no cause may be named.

    Returns:
        For example `service@3`: whether a right service is among the first 3 causes. There is such an entry for
        `service`, `operation` and `attribute`, each with 1 and 3; None if the truth does not have it. `false_alarm`
        says whether a cause was named although nothing is wrong.

    An operation is right only with the right service, and an attribute only in a cause of the right service. Case and
    white space in names of operations are ignored, and so is a service's name in front of an attribute's name.
    """
    causes = [cause for cause in _list(answer.get("causes")) if isinstance(cause, dict)]
    if answer.get("state") in {"well", "over"}:
        causes = []
    services, operations, attributes = (_list(truth.get(name)) for name in ("service", "operation", "attribute"))
    grades: dict[str, bool | None] = {"false_alarm": bool(causes) if not services else None}
    for top in TOPS:
        first = causes[:top]
        right = [cause for cause in first if _is(cause.get("service"), services)]
        grades[f"service@{top}"] = bool(right) if services else None
        fits = any(_is(cause.get("operation"), operations) for cause in right)
        grades[f"operation@{top}"] = fits if services and operations else None
        # Of each of these causes, as many attributes count as causes do.
        told = [one for cause in right for one in _list(cause.get("attributes"))[:top]]
        found = any(_has(one, wanted) for one in told for wanted in attributes)
        grades[f"attribute@{top}"] = found if services and attributes else None
    return grades


def summary(grades: Iterable[Mapping[str, bool | None]]) -> dict[str, float | None]:
    """Return the share of right answers for each entry of `grade`, and the number of false alarms."""
    every = list(grades)
    shares: dict[str, float | None] = {}
    for name in dict.fromkeys(name for each in every for name in each):
        known = [each[name] for each in every if each.get(name) is not None]
        if name == "false_alarm":
            shares["false_alarms"] = float(sum(map(bool, known)))
        else:
            shares[name] = sum(map(bool, known)) / len(known) if known else None
    return shares


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _plain(text: object) -> str:
    return " ".join(str(text).casefold().split())


def _is(said: object, right: list[Any]) -> bool:
    return any(_plain(said) == _plain(one) for one in right)


def _has(said: object, wanted: object) -> bool:
    if isinstance(wanted, str):
        key, has_value, value = wanted.partition("=")
        wanted = {"key": key} | ({"value": value} if has_value else {})
    if not isinstance(said, dict) or not isinstance(wanted, dict):
        return False
    if _plain(said.get("key")) != _plain(wanted.get("key")):
        return False
    return "value" not in wanted or _is(said.get("value"), _list(wanted["value"]))
