"""The runbooks as dashboards of one text each, so that an alert in Grafana leads to its own with a click."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models.text import TextMode

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
LIST = "none"
"""The list of all runbooks has the name that the table of alerts shows where none fires."""

_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def build_all() -> list[Dashboard]:
    """Make a dashboard of each page, and one of their list, which leads to all."""
    pages = {page.stem: _LINK.sub(_in_grafana, page.read_text(encoding="utf-8")) for page in sorted(PAGES.glob("*.md"))}
    about = pages.pop("README")
    alerts = "\n".join(f"- [{name}](/d/{_uid(name)})" for name in pages)
    return [
        _page(LIST, "Runbooks", "What is to be done when an alert fires?", f"{about}\n## All of them\n{alerts}\n"),
        *(
            _page(name, f"Runbook: {name}", f"What is to be done when {name} fires?", page)
            for name, page in pages.items()
        ),
    ]


def _uid(name: str) -> str:
    return f"runbook-{name}"


def _page(name: str, title: str, question: str, page: str) -> Dashboard:
    elsewhere = {"Overview": "overview", "Runbooks": _uid(LIST)}
    made = (
        build.Dashboard(title)
        .uid(_uid(name))
        .description(question)
        .tags(["runbook"])
        .timezone("browser")
        .readonly()
        .links([build.DashboardLink(words).url(f"/d/{uid}") for words, uid in elsewhere.items()])
        .with_panel(text.Panel().mode(TextMode.MARKDOWN).content(page).span(24).height(24))
        .build()
    )
    for one in made.panels or []:
        one.id_val = 1
    return made


def _in_grafana(link: re.Match[str]) -> str:
    """Let a link lead to where a reader in Grafana can go; a file of the project is named instead."""
    words, target = link.groups()
    if dashboard := re.fullmatch(r"http://localhost:3000(/d/.+)", target):
        return f"[{words}]({dashboard[1]})"
    if target.startswith("http"):
        return link[0]
    path = target.partition("#")[0]
    if "/" not in path:
        name = path.removesuffix(".md")
        return f"[{words}](/d/{_uid(LIST if name == 'README' else name)})"
    return f"{words} (`{(PAGES / path).resolve().relative_to(PAGES.parents[1])}`)"
