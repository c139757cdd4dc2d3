"""Writes the tables of docs/scenarios.md, from the scenarios and the rules: by `make docs`, or run as it is."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scenarios.md"
RULES = ROOT / "observability" / "prometheus" / "rules"
ELSEWHERE = {"NoTraffic": "tests/alerts/test_live.py", "TelemetryQueueNearlyFull": "tests/alerts/test_live.py"}
"""Alerts that no scenario raises, with the test that does: NoTraffic wants minutes of traffic before it ceases."""

sys.path.insert(0, str(ROOT))

from scenarios import describing


def table() -> str:
    """Return all scenarios as a Markdown table, by kind."""
    lines = ["| scenario | kind | users feel | what it teaches | alerts |", "|---|---|---|---|---|"]
    for each in sorted(_known(), key=lambda each: (each.kind, each.name)):
        alerts = ", ".join(each.signals.alerts) or "none"
        lines.append(f"| `{each.name}` | {each.kind} | {each.effect.felt} | {each.teaches} | {alerts} |")
    return "\n".join(lines) + "\n"


def alerts() -> str:
    """Return all alerts as a Markdown table, each with what proves it."""
    lines = ["| alert | proven by |", "|---|---|"]
    for name in sorted(alert_names()):
        proven = [f"`{each.name}`" for each in _known() if name in each.signals.alerts]
        if name in ELSEWHERE:
            proven.append(f"`{ELSEWHERE[name]}`")
        lines.append(f"| [{name}](runbooks/{name}.md) | {', '.join(proven)} |")
    return "\n".join(lines) + "\n"


def unseen() -> str:
    """Return the scenarios that expect no alert, each with the reason."""
    return "".join(f"- `{each.name}`: {each.no_alert}\n" for each in _known() if each.no_alert)


def alert_names() -> set[str]:
    """Return the names of all alerts."""
    read = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES.glob("*.yml"))
    rules = [rule for file in read for group in file["groups"] for rule in group["rules"]]
    return {rule["alert"] for rule in rules if "alert" in rule}


def _known() -> list[describing.Scenario]:
    return [describing.read(name) for name in describing.names()]


def updated(page: str) -> str:
    """Return the page with its tables as they should be."""
    for part, text in (("scenarios", table()), ("alerts", alerts()), ("unseen", unseen())):
        begin, end = f"<!-- begin: {part}, written by `make docs` -->\n", f"<!-- end: {part} -->\n"
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page = before + begin + text + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
