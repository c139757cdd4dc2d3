"""Writes the accuracy of `make why` into docs/why.md, from docs/why-results.json. `make docs` runs it.

`python -m scenarios accuracy --replay FOLDER --json docs/why-results.json --tuned TEXT` writes the results. Each line
of TEXT becomes an item of the list above the table.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "why.md"
RESULTS = ROOT / "docs" / "why-results.json"
BEGIN = "<!-- begin: accuracy, written by `make docs` -->\n"
END = "<!-- end: accuracy -->\n"
LEVELS = ("service", "operation", "attribute")
OURS = "make why"
BRIEF = ("with flags", "not felt")
"""Groups for which the table has only our own method."""


def share(shares: Mapping[str, float | None], name: str) -> str:
    """Return a share as a percentage, or nothing if it was not measured."""
    value = shares.get(name)
    return "" if value is None else f"{value:.0%}".replace("%", " %")


def rows(groups: Sequence[tuple[str, str]], found: Mapping[str, Any]) -> Iterator[str]:
    """Return a row for each method and group."""
    for group, label in groups:
        for method, shares in found.get(group, {}).items():
            if group in BRIEF and method != OURS:
                continue
            cells = [share(shares, f"{level}@{top}") for level in LEVELS for top in (1, 3)]
            yield f"| {method} | {label} | {' | '.join(cells)} |"


def page(found: Mapping[str, Any]) -> str:
    """Return the section with the results."""
    runs, seconds, load = found["runs"], found["seconds"], found["load"]
    head = "| method | | " + " | ".join(f"{level}, {top}" for level in LEVELS for top in ("first", "of 3")) + " |"
    groups = [
        ("faults", "one fault"),
        ("with flags", "one fault, flags seen"),
        ("not felt", "one fault, too weak to be felt"),
        ("pairs", "two at once: the larger"),
    ]
    seeds = f"seed{'s' * (len(found['seeds']) > 1)} {', '.join(map(str, found['seeds']))}"
    measured = (
        f"Measured on {found['date']} at commit `{found['commit']}`, on {found['processors']} processors"
        f" (load average: median {load['median']:.0f}, highest {load['highest']:.0f}):"
    )
    about = [line.strip() for line in found["tuned"].splitlines() if line.strip()]
    lines = [
        measured,
        "",
        f"- {runs['faults']} runs with one fault that users felt as the scenario says ({seeds}),",
        f"- {runs['not felt']} runs with one fault that was too weak to be felt,",
        f"- {runs['pairs']} runs with two faults at once,",
        f"- {runs['health']} health checks, one a minute.",
        "",
        *(["What to know about these runs:", ""] if about else []),
        *(f"- {line}" for line in about),
        *([""] if about else []),
        head,
        "|---|---|" + "---|" * 6,
        *rows(groups, found),
        "",
    ]
    by_seed = found.get("by seed", {})
    if len(by_seed) > 1:
        each = "; ".join(
            f"seed {seed}: service {share(shares, 'service@1')}, operation {share(shares, 'operation@1')}"
            for seed, shares in by_seed.items()
        )
        lines += [f"`make why`, one fault, first, by seed: {each}.", ""]
    if "health" in found:
        alarms = "; ".join(f"{method} {shares['false_alarms']:.0f}" for method, shares in found["health"].items())
        lines += [f"Health checks in which a cause was named, of {runs['health']}: {alarms}.", ""]
    middle, longest = (f"{seconds[name]:.1f} s" for name in ("median", "longest"))
    had = f"`make why` had its evidence after {middle} (median), {longest} at most."
    lines += [had, ""]
    wrong = [one for one in found["each"] if not one["right"].get("service@1", True) or one["right"].get("false_alarm")]
    if wrong:
        lines += ["It named the wrong service first, or none, in:", ""]
        lines += ["| scenario | seed | strength | it said |", "|---|---|---|---|"]
        for one in wrong:
            said = "; ".join(one["said"][:2]) or "nothing"
            lines.append(f"| {one['scenario']} | {one['seed']} | {one.get('variant') or ''} | {said} |")
    return "\n".join(lines).rstrip() + "\n"


def updated(text: str) -> str:
    """Return the page with its section of results replaced by the current one."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + page(json.loads(RESULTS.read_text(encoding="utf-8"))) + END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
