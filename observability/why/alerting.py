"""What an alert measures: the values of its expression without the limit, now, before, and for other labels."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from observability.story.text import SHORT, clean
from observability.why.answer import TEXT
from observability.why.evidence import Measure
from observability.why.statistics import median

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from observability.why.evidence import Evidence, Series

FIRING = "firing"
_OPAQUE = re.compile(rf"{TEXT}|\{{[^{{}}]*\}}|\[[^\[\]]*\]")
"""Strings, selectors and ranges, which are hidden before the search for operators; strings before selectors."""
_WORD = re.compile(r"[()]|\b(?:or|and|unless)\b")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LIMIT = re.compile(rf"\s*(==|!=|>=|<=|>|<)\s*(?:\(\s*({_NUMBER}(?:\s*\*\s*{_NUMBER})*)\s*\)|({_NUMBER}))\s*(?=$|[),])")
_NOW_SECONDS = 45
RUNBOOK = re.compile(r"docs/runbooks/\w+\.md")


def measures(expression: str) -> list[Measure]:
    """Return what an expression measures, one item for each operand of `or`."""
    return [_measure(one) for one in _split(expression.strip(), "or")]


def expression_of(alert: Mapping[str, Any], expressions: Mapping[str, str]) -> str:
    """Return the expression of an alert. Two alerts may have the same name: a page and a ticket."""
    labels = alert.get("labels") or {}
    name = str(labels.get("alertname", ""))
    return expressions.get(f"{name} {labels.get('severity', '')}", expressions.get(name, ""))


def newest_first(alerts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort alerts: firing ones first, then the newest first."""
    newest = sorted(alerts, key=lambda one: str(one.get("activeAt", "")), reverse=True)
    return sorted(newest, key=lambda one: one.get("state") != FIRING)


def told(alert: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """Describe an alert: its expression's values now and before, and the values of other series now."""
    labels = alert.get("labels")
    named = labels if isinstance(labels, dict) else {}
    notes = alert.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    name, expression = str(named.get("alertname", "")), expression_of(alert, evidence.expressions)
    runbook = RUNBOOK.search(str(notes.get("runbook_url", "")))
    found = {
        "name": name,
        "state": alert.get("state", ""),
        "since": alert.get("activeAt", ""),
        "labels": labels,
        "query": expression,
        "summary": str(notes.get("summary", "")),
        "runbook": runbook[0] if runbook else "",
        "says": "",
        "measure": expression,
        "now": None,
        "before": None,
        "others": None,
    }
    seen = [_Seen(measure, series, named, evidence) for measure, series in evidence.measured.get(expression, ())]
    known = [one for one in seen if one.mine]
    if best := next((one for one in known if one.is_bad), next(iter(known), None)):
        state = "fires" if alert.get("state") == FIRING else "is pending"
        where = ", ".join(f"{clean(key, SHORT)}={clean(value, SHORT)}" for key, value in best.labels.items())
        says = f"{clean(name, SHORT)} {state}{' for ' + where if where else ''}: {best.says}"
        found |= {"says": says, "measure": best.measure.query}
        found |= {"now": best.now, "before": best.before, "others": best.others}
    return found


class _Seen:
    """The values of a measure for an alert."""

    def __init__(
        self, measure: Measure, series: Iterable[Series], labels: Mapping[str, str], evidence: Evidence
    ) -> None:
        def is_mine(one: Series) -> bool:
            return all(labels.get(key) == value for key, value in one.labels.items() if key != "__name__")

        self.measure = measure
        self.mine = [one for one in series if is_mine(one)]
        mine, others = self.mine, [one for one in series if not is_mine(one)]
        self.labels = {key: value for one in mine[:1] for key, value in one.labels.items() if key != "__name__"}
        begin, end = evidence.at - _NOW_SECONDS, evidence.at + 1
        last = [values[-1] for one in mine if (values := one.between(begin, end))]
        self.now = _finite(last[0]) if last else None
        self._earlier = [value for one in mine for value in one.between(evidence.before, evidence.since)]
        self.before = _finite(median(self._earlier)) if self._earlier else None
        beside = [value for one in others for value in one.between(begin, end)[-1:] if math.isfinite(value)]
        worst = min if measure.operator in {"<", "<="} else max
        self.others = worst(beside) if beside and measure.operator else None

    @property
    def is_bad(self) -> bool:
        """Whether the value is bad now."""
        return self.now is not None and self.measure.holds(self.now)

    @property
    def says(self) -> str:
        """A sentence with the values."""
        limit = self.measure
        if not limit.operator:
            holds = "its expression holds" if self.is_bad else "its expression holds no longer"
            return f"{holds}; before it held {'too' if self._earlier else 'never'}."
        value = "it has no value" if self.now is None else f"it is {self.now:.3g}"
        is_bad = "" if self.is_bad else "no longer "
        text = f"{value} now, {is_bad}{limit.operator} {limit.limit:.3g}"
        text += f"; before {self.before:.3g}" if self.before is not None else "; before it had no value"
        if self.others is not None:
            most = "at least" if limit.operator in {"<", "<="} else "at most"
            text += f"; all others now {most} {self.others:.3g}"
        return f"{text}."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _measure(alternative: str) -> Measure:
    first = _split(alternative, "and", "unless")[0]
    if first != alternative:
        return _measure(first)
    hidden = _hidden(alternative)
    found = list(_LIMIT.finditer(hidden))
    compared = len(re.findall(r"==|!=|>=|<=|>|<", hidden))
    if len(found) != 1 or compared != 1:
        return Measure(alternative)
    start, end = found[0].span()
    limit = math.prod(float(number) for number in (found[0][2] or found[0][3]).split("*"))
    return Measure(alternative[:start] + alternative[end:], found[0][1], limit)


def _split(expression: str, *words: str) -> list[str]:
    """Split at operators outside of parentheses; parentheses around the whole expression are removed."""
    hidden, depth, begin, found = _hidden(expression), 0, 0, list[str]()
    while hidden.startswith("(") and _closing(hidden) == len(hidden) - 1:
        expression = expression[1:-1].strip()
        hidden = _hidden(expression)
    for word in _WORD.finditer(hidden):
        depth += {"(": 1, ")": -1}.get(word[0], 0)
        if depth == 0 and word[0] in words:
            found.append(expression[begin : word.start()].strip())
            begin = word.end()
    return [*found, expression[begin:].strip()]


def _closing(hidden: str) -> int:
    depth = 0
    for place, character in enumerate(hidden):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place
    return -1


def _hidden(expression: str) -> str:
    """Replace strings, selectors and ranges by as many other characters."""
    for _ in range(2):
        expression = _OPAQUE.sub(lambda found: "_" * len(found[0]), expression)
    return expression
