"""The first page: is anything wrong, and where?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, abort

from observability.console import chart, pages, servicemap, show
from observability.story.apis import attempt, together

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
_SLOS = '{sloth_service="shop"}'
_ERRORS = '{service_namespace="shop"} | level=~"error|critical"'
_BUDGET = {
    "promised": f"sum by (sloth_slo) (slo:objective:ratio{_SLOS})",
    "left": f"sum by (sloth_slo) (slo:period_error_budget_remaining:ratio{_SLOS})",
    "burn": f"sum by (sloth_slo) (slo:current_burn_rate:ratio{_SLOS})",
}
_GRAPHS = (
    ("Requests", 'sum by (http_route) (job_route:http_server_requests:rate1m{job="nginx"})', "reqps"),
    ("Latency, p95", "LATENCY", "s"),
    ("Orders", 'sum by (status) (rate(orders_total{status!="PENDING"}[1m]))', "suffix:orders/s"),
)
_LATENCY = (
    "histogram_quantile(0.95, sum by (job, le) (rate(http_server_request_duration_seconds_bucket"
    '{http_route!~"/healthz|/readyz|/metrics"}[1m]))) >= 0'
)

routes = Blueprint("overview", __name__)


@routes.get("/")
def overview() -> str:
    """Show the shop as a whole."""
    window, errors = pages.window(), list[str]()
    ask = pages.apis()
    figures = {name: _by_slo(query, errors) for name, query in _BUDGET.items()}
    promised = figures["promised"]
    slos = None
    if promised is not None:
        known = figures["left"] is not None
        slos = [
            {"name": name, "known": known, **{key: (found or {}).get(name) for key, found in figures.items()}}
            for name in promised
        ]

    def graph(one: tuple[str, str, str]) -> tuple[str, chart.Chart | None]:
        title, query, unit = one

        def drawn() -> chart.Chart:
            found = ask.prometheus.over(query.replace("LATENCY", _LATENCY), window, window.step)
            series = [
                chart.Series(" ".join(each["metric"].values()) or title, chart.points_of(each["values"]))
                for each in found
            ]
            return chart.draw(series, unit, window, least=0.01 if unit == "s" else 1)

        return title, attempt(errors, drawn, lambda: None)

    return pages.page(
        "overview.html",
        errors,
        window=window,
        map=servicemap.build(ask, window, errors),
        slos=slos,
        alerts=attempt(errors, lambda: _alerts(ask.prometheus.alerts()), lambda: None),
        runbooks={path.stem for path in RUNBOOKS.glob("*.md")},
        lines=attempt(errors, lambda: ask.loki.lines(_ERRORS, window, limit=8), lambda: None),
        errors_query=_ERRORS,
        graphs=together(graph, _GRAPHS),
    )


@routes.get("/runbooks/")
def runbooks() -> str:
    """List the runbooks."""
    return runbook("README")


@routes.get("/runbooks/<name>")
def runbook(name: str) -> str:
    """Show a runbook."""
    known = {path.stem: path for path in RUNBOOKS.glob("*.md")}
    if name not in known:
        abort(404, f"There is no runbook {name}.")
    names = sorted(known.keys() - {"README"})
    text = known[name].read_text(encoding="utf-8")
    return pages.page("runbook.html", name=name, names=names, text=show.markdown(show.leading_here(text)))


def _by_slo(query: str, errors: list[str]) -> dict[str, float] | None:
    def read() -> dict[str, float]:
        found = pages.apis().prometheus.now(query)
        return {one["metric"].get("sloth_slo", ""): float(one["value"][1]) for one in found}

    return attempt(errors, read, lambda: None)


def _alerts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give what the page shows of alerts, firing ones first."""
    alerts = [
        {
            "name": str(one["labels"].get("alertname", "")),
            "severity": one["labels"].get("severity", ""),
            "state": str(one["state"]),
            "summary": one.get("annotations", {}).get("summary", ""),
        }
        for one in found
    ]
    return sorted(alerts, key=lambda one: one["state"])
