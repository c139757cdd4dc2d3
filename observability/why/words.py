"""Texts about an answer that the command and the console's page share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability.story.text import SHORT, clean
from observability.why.alerting import FIRING

if TYPE_CHECKING:
    from observability.why.answer import Answer, Cause

_SURE, _LIKELY = 0.85, 0.6
_STATES = {
    "well": "Nothing is wrong.",
    "over": "Nothing is wrong any more. A moment ago it was:",
}
_PART_WELL = "Nothing is wrong in what could be looked at, which is not all."
_LOOKS_BACK = "Nothing is wrong any more. An alert on a budget still looks back."


def headline(answer: Answer) -> str:
    """Return one sentence that sums up the answer."""
    if answer.state == "well" and answer.not_looked_at:
        return _PART_WELL
    if answer.state == "over" and not answer.causes:
        return _LOOKS_BACK
    if answer.state == "unexplained":
        firing = dict.fromkeys(clean(one["name"], SHORT) for one in answer.alerts if one["state"] == FIRING)
        return f"An alert fires, and no cause was found: {', '.join(firing)}."
    return _STATES.get(answer.state) or _summary(answer)


def _summary(answer: Answer) -> str:
    first = answer.causes[0]
    return f"Something is wrong: {name(first)}{_with(first)}."


def name(cause: Cause) -> str:
    """Return the name of a cause."""
    return clean(f"{cause.service} {cause.operation}".strip(), 2 * SHORT)


def _with(cause: Cause) -> str:
    return (
        f", {clean(cause.attributes[0].key, SHORT)}={clean(cause.attributes[0].value, SHORT)}"
        if cause.attributes
        else ""
    )


def sure(confidence: float) -> str:
    """Return a cause's confidence in words."""
    word = "sure" if confidence >= _SURE else "likely" if confidence >= _LIKELY else "possible"
    return f"{word} ({confidence:.0%})"
