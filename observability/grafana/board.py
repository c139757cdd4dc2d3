"""The frame that all dashboards have: variables, annotations, and links to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from observability.grafana.queries import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

    from observability.grafana.panels import Panel

WIDTH = 24  # columns, of which a dashboard has always so many

TITLES = {
    "overview": "Overview",
    "order-path": "Order path",
    "service": "Service",
    "database": "Database",
    "telemetry": "Telemetry health",
    "load": "Load test",
}
"""All dashboards: uid and title."""


def choice_of_service() -> build.QueryVariable:
    """Make the variable `service`: who answers requests, the gateway too."""
    query = 'label_values(up{job=~".+-service|nginx"}, job)'
    return (
        build.QueryVariable("service")
        .label("service")
        .datasource(METRICS)
        .query({"query": query, "qryType": 1, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .current(model.VariableOption(selected=True, text="order-service", value="order-service"))
    )


def choice_of_duration() -> build.CustomVariable:
    """Make the variable `slower_than`, for searches for traces: Jaeger gives the newest, not the slowest."""
    choices = ("1ms", "10ms", "50ms", "100ms", "250ms", "500ms", "1s", "3s")
    return (
        build.CustomVariable("slower_than")
        .label("traces slower than")
        .values(",".join(choices))
        .options([model.VariableOption(selected=one == "10ms", text=one, value=one) for one in choices])
        .current(model.VariableOption(selected=True, text="10ms", value="10ms"))
    )


def choice_of_route() -> build.QueryVariable:
    """Make the variable `route`: the routes of the chosen service."""
    query = 'label_values(http_server_request_duration_seconds_count{job="$service"}, http_route)'
    return (
        build.QueryVariable("route")
        .label("route")
        .datasource(METRICS)
        .query({"query": query, "qryType": 1, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .include_all(include_all=True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def choice_of_level() -> build.CustomVariable:
    """Make the variable `level`, of log lines; lines that have none, such as nginx's own, belong to all."""
    choices = ("critical", "error", "warning", "info", "debug")
    return (
        build.CustomVariable("level")
        .label("level")
        .values(",".join(choices))
        .options([model.VariableOption(selected=False, text=one, value=one) for one in choices])
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def search() -> build.TextBoxVariable:
    """Make the variable `search`: what a log line has to contain, as it stands and in any case.

    No backtick can be searched: LogQL has the text between two of them, where nothing else has to be escaped.
    """
    return (
        build.TextBoxVariable("search")
        .label("search the log")
        .default_value("")
        .current(model.VariableOption(selected=True, text="", value=""))
    )


def _annotation(name: str, color: str, expr: str, title: str) -> build.AnnotationQuery:
    return (
        build.AnnotationQuery()
        .name(name)
        .datasource(METRICS)
        .enable(enable=True)
        .hide(hide=False)
        .icon_color(color)
        .expr(expr)
        .title_format(title)
        .step("5s")
    )


def _annotations() -> list[Builder[model.AnnotationQuery]]:
    starts = _annotation("starts", "blue", 'process_start_time_seconds{job=~".+-service"} * 1000', "{{job}} started")
    return [
        starts.use_value_for_time(use_value_for_time=True),
        _annotation("load runs", "purple", "sum(loadtest_users) > 0", "a load test runs"),
        _annotation("faults", "dark-orange", "max by (fault) (simulated_faults) > 0", "simulated fault: {{fault}}"),
        _annotation(
            "pages",
            "dark-red",
            'max by (alertname) (ALERTS{alertstate="firing", severity="page"})',
            "alert: {{alertname}}",
        ),
    ]


def board(
    uid: str,
    question: str,
    sections: Mapping[str, Sequence[Panel]],
    *,
    variables: Sequence[Callable[[], Builder[model.VariableModel]]] = (),
    tags: Sequence[str] = (),
) -> model.Dashboard:
    """Put panels into a dashboard that looks and behaves as all of ours do.

    Args:
        uid: Its name in links.
        question: What it answers.
        sections: Title -> its panels, in their order, from the upper left.
        variables: What makes its variables.
        tags: Beside `shop`.
    """
    frame = (
        build.Dashboard(TITLES[uid])
        .uid(uid)
        .description(question)
        .tags(["shop", *tags])
        .timezone("browser")
        .readonly()
        .time("now-30m", "now")
        .refresh("10s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .annotations(_annotations())
        .variables([make() for make in variables])
        .links(
            [
                build.DashboardLink(title).url(f"/d/{other}").keep_time(keep_time=True)
                for other, title in TITLES.items()
                if other != uid
            ]
        )
    )
    made = frame.build()
    made.panels = list(_laid_out(sections))
    for number, panel in enumerate(made.panels, 1):
        panel.id_val = number
    return made


def _laid_out(sections: Mapping[str, Sequence[Panel]]) -> Iterator[model.Panel | model.RowPanel]:
    """Put panels side by side until a line is full. All of a line are as high as the highest: no hole is left."""
    y = 0
    for title, panels in sections.items():
        yield model.RowPanel(title=title, grid_pos=model.GridPos(h=1, w=WIDTH, x=0, y=y))
        y += 1
        line: list[model.Panel] = []
        for panel in panels:
            made = panel.build()
            line.append(made)
            used = sum(_place(one).w for one in line)
            if used > WIDTH:
                raise ValueError(f"{title}: the line with {made.title} is {used} wide")
            if used < WIDTH:
                continue
            height, x = max(_place(one).h for one in line), 0
            for one in line:
                width = _place(one).w
                one.grid_pos = model.GridPos(h=height, w=width, x=x, y=y)
                x += width
                yield one
            y += height
            line = []
        if line:
            raise ValueError(f"{title}: its last line is not full")


def _place(panel: model.Panel) -> model.GridPos:
    return panel.grid_pos or model.GridPos()
