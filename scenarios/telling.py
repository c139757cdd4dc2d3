"""Reports the outcome of scenarios: as a sentence, a table, or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from observability.why.grade import grade
from scenarios.outcome import BEFORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scenarios.describing import Truth
    from scenarios.outcome import Outcome

_MISSING = {
    "calm": "not calm before the fault: {found}",
    "effect": "users did not feel it: {found}",
    "silent": "{what} was raised, and should not be",
    "recovery": "not well again afterwards",
    "run": "{found}",
}
SIGNALS = ("alert", "trace", "log", "metric", "panel")
_COLUMNS = (
    "scenario",
    "kind",
    "users feel",
    "before",
    "during",
    "signals seen",
    "first alert",
    "seconds",
    "why",
    "passed",
)


def verdict(outcome: Outcome) -> str:
    """Return the outcome of a scenario in one line."""
    if outcome.skipped:
        return f"  {outcome.scenario.name}: skipped, because it {outcome.skipped}\n"
    missing = [
        _MISSING.get(check.kind, "{kind} not seen: {what}").format(**vars(check))
        for check in outcome.checks
        if check.binding and not check.kept
    ]
    said = f"FAILED ({'; '.join(missing)})" if missing else "passed"
    return f"  {outcome.scenario.name}: {said}. Expected signals seen: {_seen(outcome)} ({outcome.seconds:.0f} s)\n"


def _seen(outcome: Outcome) -> str:
    """Return how many of the signals were seen, and which were on before, so that they prove nothing."""
    signals = outcome.of(*SIGNALS)
    said = f"{sum(check.kept for check in signals)} of {len(signals)}"
    before = [check.what for check in signals if not check.kept and check.found == BEFORE]
    return f"{said}; not proven, since on before: {', '.join(before)}" if before else said


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return a row for each scenario."""
    return [_row(outcome) for outcome in outcomes]


def _row(outcome: Outcome) -> tuple[str, ...]:
    why, alerts = outcome.of("why"), outcome.of("alert")
    seen = [check.seconds for check in alerts if check.seconds is not None]
    first = f"{min(seen):.0f} s" if seen else "none"
    effect = outcome.scenario.effect
    return (
        outcome.scenario.name,
        outcome.scenario.kind,
        effect.felt,
        _number(outcome.before),
        _number(outcome.during),
        "none" if outcome.skipped else _seen(outcome),
        first,
        f"{outcome.seconds:.0f}",
        why[0].found if why else "not asked",
        f"skipped: {outcome.skipped}" if outcome.skipped else "yes" if outcome.ok else "NO",
    )


def of_why(answer: Mapping[str, Any], truth: Truth) -> tuple[str, bool]:
    """Return which parts of the answer of `make why` are right, and whether all are."""
    wanted = {"service": truth.service, "operation": truth.operation, "attribute": truth.attribute}
    right = {name: grade(answer, wanted)[f"{name}@1"] for name in wanted}
    marks = ", ".join(f"{name} {'right' if fits else 'wrong'}" for name, fits in right.items() if fits is not None)
    if all(fits is not False for fits in right.values()):
        return marks, True
    first: dict[str, Any] = next(iter(answer.get("causes") or ()), {})
    attribute = next((f"{one['key']}={one['value']}" for one in first.get("attributes", ())), "")
    said = " ".join(filter(None, (first.get("service"), first.get("operation"), attribute)))
    return f"{marks}: it says {said or 'that nothing is wrong'}", False


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table of all outcomes, with a summary as the last line."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(outcomes)]
    run = [outcome for outcome in outcomes if not outcome.skipped]
    skipped = f"; {len(outcomes) - len(run)} skipped" if len(run) < len(outcomes) else ""
    seconds = sum(outcome.seconds for outcome in run)
    return "\n".join([*lines, "", f"{sum(each.ok for each in run)} of {len(run)} passed{skipped}, in {seconds:.0f} s."])


def write_markdown(path: str, outcomes: Sequence[Outcome]) -> None:
    """Write the table to a file."""
    Path(path).write_text(table(outcomes) + "\n", encoding="utf-8")


def write_json(path: str, outcomes: Sequence[Outcome]) -> None:
    """Write all outcomes to a file as JSON."""
    told = [
        {
            **{name: getattr(outcome, name) for name in ("before", "during", "after", "seconds", "ok", "skipped")},
            "scenario": outcome.scenario.model_dump(mode="json"),
            "checks": [asdict(check) for check in outcome.checks],
        }
        for outcome in outcomes
    ]
    Path(path).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
