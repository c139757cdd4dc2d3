"""What Grafana makes of its links, and of Jaeger's: the query that a click sends.

As its sources of 12.4 and 13 do: `createSpanLink.tsx`, `crossSignalConfig.ts` and `logsLink.ts` (trace to logs and to
metrics), `result_transformer.ts` of its Prometheus library (exemplars), `getDerivedFields.ts` (log lines).
"""

import json
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import yaml

OBSERVABILITY = Path(__file__).parents[2] / "observability"
GRAFANA = OBSERVABILITY / "grafana"


@dataclass(frozen=True)
class Click:
    """Where a click leads: a query of a data source, and the time that it is asked for, in milliseconds."""

    source: str
    query: dict
    start: int = 0
    end: int = 0


def sources(text=None):
    """The provisioned data sources as Grafana knows them: uid -> settings."""
    text = text or (GRAFANA / "provisioning" / "datasources" / "datasources.yaml").read_text()
    return {one["uid"]: _unescaped(one) for one in yaml.safe_load(text)["datasources"]}


def _unescaped(value):
    if isinstance(value, dict):
        return {key: _unescaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_unescaped(one) for one in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def interpolated(text, known):
    """The text with values for its variables, such as `${a.b}`, `${a["b"]}` and `$a`; what is unknown stays."""

    def value(found):
        path = re.findall(r"""\[["']([^"']+)["']\]|(\w+)""", found[1] or found[2])
        here = known
        for quoted, plain in path:
            here = here.get(quoted or plain) if isinstance(here, dict) else None
        return found[0] if here is None else str(here)

    return re.sub(r"\$(?:\{([^{}]+)\}|(\w+))", value, text)


# From a trace


def tags_of(trace, span):
    """The tags that Grafana knows a span by. The service's name is none of them: Jaeger has it beside the tags."""
    return [
        *trace["processes"][span["processID"]]["tags"],
        *span["tags"],
        {"key": "spanId", "value": span["spanID"]},
        {"key": "traceId", "value": span["traceID"]},
        {"key": "name", "value": span["operationName"]},
        {"key": "duration", "value": span["duration"]},
    ]


def _known(trace, span, wanted):
    labels = {one["key"]: one.get("value") or one["key"] for one in wanted}
    tags = tags_of(trace, span)
    found = [f'{labels[tag["key"]]}="{tag["value"]}"' for tag in tags if tag["key"] in labels]
    values = {tag["key"]: tag["value"] for tag in tags[:-4]}
    of_span = {"spanId": span["spanID"], "traceId": span["traceID"], "name": span["operationName"], "tags": values}
    return {"__tags": ", ".join(found), "__trace": {"traceId": trace["traceID"]}, "__span": of_span}


def _time_of(span, options):
    start = span["startTime"] // 1000 + _milliseconds(options["spanStartTimeShift"])
    end = (span["startTime"] + span["duration"]) // 1000 + _milliseconds(options["spanEndTimeShift"])
    return start, max(end, start + 1)


def _milliseconds(text):
    number, unit = re.fullmatch(r"(-?\d+)([smhd])", text).groups()
    return int(number) * {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]


def to_logs(jaeger, trace, span):
    """From a span to its log lines; None where Grafana shows no link."""
    options = jaeger["jsonData"]["tracesToLogsV2"]
    assert options["customQuery"] is True
    expr = interpolated(options["query"], _known(trace, span, options["tags"]))
    return None if "${" in expr else Click(options["datasourceUid"], {"expr": expr}, *_time_of(span, options))


def to_metrics(jaeger, trace, span):
    """From a span to metrics: a click for each query."""
    options = jaeger["jsonData"]["tracesToMetrics"]
    known = _known(trace, span, options["tags"])
    time = _time_of(span, options)
    return [
        Click(options["datasourceUid"], {"expr": interpolated(one["query"], known)}, *time)
        for one in options["queries"]
    ]


# From a metric, from a log line


def from_exemplar(prometheus, labels, now):
    """From the point of an exemplar: a click for each link in its box."""
    found = []
    for one in prometheus["jsonData"]["exemplarTraceIdDestinations"]:
        if one["name"] not in labels:
            continue
        value = {"__value": {"raw": labels[one["name"]]}}
        if "datasourceUid" in one:
            query = {"query": interpolated("${__value.raw}", value), "queryType": "traceql"}
            found.append(Click(one["datasourceUid"], query))
        if "url" in one:
            assert one.get("urlDisplayLabel"), "else the whole address is the words of the link"
            found += of_explore(interpolated(one["url"], value), now)
    return found


def from_line(loki, labels):
    """From a log line with these labels, structured metadata among them."""
    return [
        Click(one["datasourceUid"], {"query": interpolated(one["url"], {"__value": {"raw": labels[key]}})})
        for one in loki["jsonData"]["derivedFields"]
        for key in labels
        if one["matcherType"] == "label" and re.search(f"^{one['matcherRegex']}$", key)
    ]


def of_explore(url, now):
    """The queries of an address of Explore; `now` is in milliseconds."""
    address = urllib.parse.urlsplit(url)
    assert address.path == "/explore"
    parameters = urllib.parse.parse_qs(address.query, strict_parsing=True)
    assert parameters["schemaVersion"] == ["1"]
    clicks = []
    for pane in json.loads(parameters["panes"][0]).values():
        start, end = (now + _milliseconds(pane["range"][edge].removeprefix("now") or "0s") for edge in ("from", "to"))
        for query in pane["queries"]:
            assert query["datasource"]["uid"] == pane["datasource"]
            clicks.append(Click(pane["datasource"], query, start, end))
    return clicks


def of_jaegers_page(trace, now):
    """From a trace in Jaeger's own page."""
    patterns = json.loads((OBSERVABILITY / "jaeger" / "ui.json").read_text())["linkPatterns"]
    return [
        click
        for pattern in patterns
        if pattern["type"] == "traces"
        for click in of_explore(pattern["url"].replace("#{traceID}", trace["traceID"]), now)
    ]


def rows_of_calls(calls, matcher):
    """What `${__data.fields.x}` can be at each field that an override of a node graph is for: a row for each."""
    found = []
    for rows in frames_of_calls(calls):
        for row in rows:
            fits = [
                name for name in row if any(_matches(matcher, one) for one in (name, DISPLAY_NAMES.get(name, name)))
            ]
            found += [row] * len(fits)
    return found


def frames_of_calls(calls):
    """`transformDependenciesResponse` of Grafana's `pkg/tsdb/jaeger/querydata.go`: a frame of nodes, one of edges."""
    names = {call[end] for call in calls for end in ("parent", "child")}
    nodes = [{"id": name, "title": name} for name in sorted(names)]
    edges = [
        {
            "id": f"{call['parent']}--{call['child']}",
            "source": call["parent"],
            "target": call["child"],
            "mainstat": call["callCount"],
        }
        for call in calls
    ]
    return nodes, edges


DISPLAY_NAMES = {"mainstat": "Call count"}
"""A matcher finds a field by either name."""


def _matches(matcher, name):
    if matcher["id"] == "byName":
        return matcher["options"] == name
    assert matcher["id"] == "byRegexp"
    return re.search(matcher["options"].strip("/"), name) is not None


# What the backends say


def answers(click, prometheus, loki, jaeger):
    """What Grafana's data source makes of the query: its rows; None where it does not know such a query."""
    if click.source == "jaeger":
        return _traces(click, jaeger)
    expr = click.query["expr"]
    if click.source == "loki":
        window = {"start": click.start * 1_000_000, "end": click.end * 1_000_000}
        answer = loki.get("/loki/api/v1/query_range", params={"query": expr, **window, "limit": 1000})
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        return [line for stream in answer.json()["data"]["result"] for _, line in stream["values"]]
    window = {"start": click.start / 1000, "end": click.end / 1000, "step": 15}
    answer = prometheus.get("/api/v1/query_range", params={"query": expr, **window})
    assert answer.status_code == 200, f"{expr}: {answer.text}"
    return answer.json()["data"]["result"]


def _traces(click, jaeger):
    """`pkg/tsdb/jaeger`: by a trace's id, whatever the time, if nothing else is said; or who calls whom."""
    match click.query.get("queryType", ""):
        case "":
            answer = jaeger.get(f"/api/traces/{click.query['query']}")
        case "dependencyGraph":
            window = {"endTs": click.end, "lookback": click.end - click.start}
            answer = jaeger.get("/api/dependencies", params=window)
        case _:
            return None
    return answer.json()["data"] if answer.status_code == 200 else []
