"""Say whether the shop got slower or dearer than measurements scatter: `make bench-judge`.

Usage: python -m bench.judge PAGE

Ratios are compared, round by round, since a machine's pace changes by itself. Two questions, of .run/bench: is this
commit worse than the one before beside it (`before`), and does telemetry cost more than in the results that
docs/performance keeps (`overhead`)? The second is only judged on a machine like the one of the kept results: with
other processors the ratios differ too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import figures, report
from bench.cli import RESULTS
from bench.figures import Spread
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = PROJECT / "docs" / "performance"
TOLERANCE = 0.03
"""A worse median within this is no regression, even if all rounds agree."""

FIELDS = {"per_second": ("orders/s", 1), "cpu_ms": ("CPU ms per order", -1)}
"""What is compared: its name, and 1 if more is better."""


class Finding(NamedTuple):
    """A ratio that is compared with what it should be."""

    what: str
    was: Spread
    now: Spread
    verdict: str


def beside(result: dict[str, Any]) -> list[Finding]:
    """Compare the second configuration with the first, which was measured in the same rounds."""
    first, second = [*result["rows"]][:2]
    same = Spread(1.0, 1.0, 1.0)
    return [
        Finding(f"{name}, beside {first}", same, now, _verdict(same, now, better))
        for field, (name, better) in FIELDS.items()
        if (now := _ratio(result, second, first, field))
    ]


def against(result: dict[str, Any], kept: dict[str, Any]) -> list[Finding]:
    """Compare what telemetry costs with what it cost when the kept result was made."""
    is_alike = all(result["machine"][name] == kept["machine"][name] for name in ("cores", "cpu"))
    findings = []
    for row in result["rows"]:
        for field, (name, better) in FIELDS.items():
            was, now = (_ratio(each, row, result["base"], field) for each in (kept, result))
            if row != result["base"] and was and now:
                verdict = _verdict(was, now, better) if is_alike else "not judged: another machine"
                findings.append(Finding(f"{name} of {row}, of {result['base']}'s", was, now, verdict))
    return findings


def _ratio(result: dict[str, Any], row: str, base: str, field: str) -> Spread | None:
    values, of_base = (figures.by_round(result["turns"], name, field) for name in (row, base))
    return figures.ratios(values, of_base)


def _verdict(was: Spread, now: Spread, better: int) -> str:
    """Judge: worse is when each round is worse than each of before, and the median by more than the tolerance."""
    if better > 0:
        is_apart, change = now.high < was.low, now.median / was.median
    else:
        is_apart, change = now.low > was.high, was.median / now.median
    return "WORSE" if is_apart and change < 1 - TOLERANCE else "as before"


def page(findings: Sequence[Finding], results: Sequence[dict[str, Any]]) -> str:
    """Write the findings and all tables, in Markdown."""
    lines = ["## Bench", "", "| what | before | now | verdict |", "|---|---|---|---|"]
    lines += [f"| {one.what} | {one.was.text(2)} | {one.now.text(2)} | {one.verdict} |" for one in findings]
    return "\n".join(lines) + "\n\n" + "\n".join(report.markdown(result) for result in results)


def main(arguments: Sequence[str]) -> int:
    """Judge the results; 1 if something got worse, 2 if there is nothing to judge."""
    (to,) = map(Path, arguments)
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    findings: list[Finding] = []
    if "before" in results:
        findings += beside(results["before"])
    if "overhead" in results:
        kept = json.loads((KEPT / "overhead.json").read_text(encoding="utf-8"))
        findings += against(results["overhead"], kept)
    if not findings:
        print(f"There is nothing to judge in {RESULTS}: `make bench bench-before` first.", file=sys.stderr)
        return 2
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(page(findings, [*results.values()]), encoding="utf-8")
    for one in findings:
        print(f"{one.verdict}: {one.what}: {one.was.text(2)} before, {one.now.text(2)} now")
    return int(any(one.verdict == "WORSE" for one in findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
