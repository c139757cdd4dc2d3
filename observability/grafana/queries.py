"""Queries of the dashboards: PromQL, LogQL, and searches for traces."""

from __future__ import annotations

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.loki import LokiQueryDirection

METRICS = DataSourceRef(type_val="prometheus", uid="prometheus")
TRACES = DataSourceRef(type_val="jaeger", uid="jaeger")
LOGS = DataSourceRef(type_val="loki", uid="loki")

RATE = "$__rate_interval"
"""A minute, or more if one looks at a day: four times the data source's `timeInterval`, which is 15 s for that."""

NO_PROBES = 'http_route!~"/healthz|/readyz|/metrics"'
"""What asks a service how it is would make its latency look good."""

STATEMENTS_OF_WORK = 'db_query_summary!~"SELECT (1|pg_stat_.+)"'
"""Leaves out what is asked of the database to see how it is: readiness, and PostgreSQL's own numbers."""

REQUESTS = "http_server_request_duration_seconds"


def promql(expr: str, legend: str = "", *, exemplars: bool = False) -> prometheus.Dataquery:
    """Make a query over time; `exemplars` puts the traces behind a histogram on the graph."""
    query = prometheus.Dataquery().expr(expr).legend_format(legend).range().datasource(METRICS)
    return query.exemplar(exemplar=True) if exemplars else query


def promql_now(expr: str, legend: str = "") -> prometheus.Dataquery:
    """Make a query for one number a series, now."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).instant().datasource(METRICS)


def logql(expr: str, legend: str = "") -> loki.Dataquery:
    """Make a query for log lines, or for a number made of them."""
    query = loki.Dataquery().expr(expr).query_type("range").datasource(LOGS)
    return query.legend_format(legend) if legend else query.direction(LokiQueryDirection.BACKWARD)


class Traces(Builder[UnknownDataquery]):
    """A query of Grafana's Jaeger data source, which the SDK has no class for."""

    def __init__(self, kind: str, **fields: object) -> None:
        self._fields: dict[str, object] = {"datasource": TRACES.to_json(), "queryType": kind, **fields}

    def build(self) -> UnknownDataquery:
        """Give the query."""
        return UnknownDataquery(self._fields)


class Search(Traces):
    """A search for traces: of a service, with a span of this name if one is given, that took so long or longer."""

    def __init__(self, service: str, operation: str, slower_than: str) -> None:
        named = {"operation": operation} if operation else {}
        super().__init__("search", service=service, minDuration=slower_than, limit=50, **named)


class Calls(Traces):
    """Who calls whom: Jaeger's dependencies in the time shown."""

    def __init__(self) -> None:
        super().__init__("dependencyGraph")


def requests_said(stream: str, found: str = "") -> str:
    """Give the LogQL of the access lines of a selected stream, in words; `found` is a filter of what is searched."""
    return f'{stream} | json | __error__="" | event="request.completed"{_shown(_REQUEST, found)}'


def events_said(stream: str, found: str = "") -> str:
    """Give the LogQL of all other lines, in words: what happened, to what, and why. An event has few of the fields."""
    return f'{stream} | json | __error__="" | event!="request.completed"{_shown(_EVENT, found)}'


def others_said(stream: str, found: str = "") -> str:
    """Give the LogQL of the lines that are no JSON, as they are: nginx about itself, an interpreter at its end."""
    return f'{stream} | json | __error__!=""{found} | line_format "{{{{__line__}}}}"'


def counts_of_lines(stream: str, found: str) -> tuple[str, str]:
    """Give the LogQL of how many lines of each level `found` finds, as above: of JSON, and of those that are none.

    Two, since Loki refuses to count lines that `json` could not read.
    """
    json = f'{stream} | json | __error__="" | line_format "{_REQUEST} {_EVENT} {{{{__line__}}}}"{found}'
    others = f"{stream} !~ `^[{{]`{found}"
    by_level = "sum by (level) (count_over_time({} [$__auto]))"
    return by_level.format(json), by_level.format(others)


_REQUEST = "{{.method}} {{.http_route}} {{.status}} in {{.duration_s}} s"
_EVENT = (
    "{{.event}} {{.order_id}}{{.task}}{{.thread}}{{.stream}}{{.error_type}}"
    " {{.dependency}}{{.status}}{{.outcome}}{{.reason}}{{.message}}"
    " {{.cause}}{{.decline_reason}}{{.exception_type}} {{.exception_cause}}"
)


def _shown(words: str, found: str) -> str:
    """Show a line in words. What is searched is the words, and the whole line, which has more fields."""
    searched = f' | line_format "{words} {{{{__line__}}}}"{found}' if found else ""
    return f'{searched} | line_format "{words}"'


def share(part: str, whole: str, by: str) -> str:
    """Give the PromQL of a share: 0, and not missing, where there is none of the part; missing where all is still."""
    return f"(sum by ({by}) ({part}) or 0 * sum by ({by}) ({whole})) / (sum by ({by}) ({whole}) > 0)"


def quantile(share_below: float, metric: str, by: str, selector: str = "") -> str:
    """Give the PromQL of a histogram's quantile, a series for each value of the labels `by` for which there is one."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share_below}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[{RATE}]))) >= 0"
