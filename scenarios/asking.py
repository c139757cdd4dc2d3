"""Queries Jaeger, Loki and Prometheus for the signals that a scenario promises."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from scenarios.describing import Log, Trace
    from scenarios.place import Place

_TIMEOUT = 5
_LINES, _LINES_NS = 200, 60 * 10**9
_DASHBOARDS = Path(__file__).resolve().parent.parent / "observability" / "grafana" / "dashboards"
_OUTSIDE_US = 2000  # tolerance for a span outside of its parent, since clocks are not read at the same instant


class Telemetry:
    """The shop's telemetry, by APIs that are the same in both modes.

    Args:
        place: The addresses.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._session = requests.Session()
        self._session.trust_env = False

    def alerts(self) -> dict[str, tuple[str, float]]:
        """Return each pending or firing alert with its state and the time since which it is active (Unix time)."""
        found: dict[str, tuple[str, float]] = {}
        for alert in self._get(self._place.prometheus, "/api/v1/alerts", {})["data"]["alerts"]:
            name, state, since = alert["labels"]["alertname"], alert["state"], _unix(alert["activeAt"])
            known = found.get(name)
            if known is None or state == "firing" or since < known[1]:
                found[name] = (state, since)
        return found

    def query(self, expression: str) -> list[float]:
        """Return the current values of a PromQL expression."""
        result = self._get(self._place.prometheus, "/api/v1/query", {"query": expression})["data"]["result"]
        return [float(each["value"][1]) for each in result]

    def trace(self, wanted: Trace, since: float) -> str | None:
        """Return the id of a trace since then that has this span, None if there is none."""
        now = time.time()
        fields = {
            "service": wanted.service,
            "operation": wanted.operation,
            "start": str(int(since * 1e6)),
            "end": str(int((now + 2 * wanted.ahead) * 1e6)),
            "limit": "20",
        }
        if wanted.over:
            fields["minDuration"] = f"{int(wanted.over * 1e6)}us"
        for trace in self._get(self._place.jaeger, "/api/traces", fields)["data"] or ():
            for span in trace["spans"]:
                if _is(wanted, span, trace["processes"][span["processID"]], now):
                    return str(trace["traceID"])
        return None

    def whole(self, trace_id: str) -> tuple[bool, bool]:
        """Return whether an order's trace is complete, and whether each span begins within its parent."""
        answer = self._session.get(f"{self._place.jaeger}/api/traces/{trace_id}", timeout=_TIMEOUT)
        data = answer.json().get("data") if answer.status_code == 200 else None  # noqa: PLR2004
        if not data:
            return False, True
        spans = {span["spanID"]: span for span in data[0]["spans"]}
        services = {process["serviceName"] for process in data[0]["processes"].values()}
        parents = [(span, _parent(span)) for span in spans.values()]
        known = all(parent is None or parent in spans for _, parent in parents)
        inside = all(_within(span, spans[parent]) for span, parent in parents if parent in spans)
        return known and {"nginx", "order-service", "product-service", "payment-service"} <= services, inside

    def lines(self, wanted: Log, since: float) -> int:
        """Return the number of these log lines since then."""
        conditions = "".join(f" | {name}={json.dumps(value)}" for name, value in wanted.where.items())
        fields = {
            "query": f'{{service_name="{wanted.service}"}} | json | event="{wanted.event}"{conditions}',
            "start": str(int(since * 1e9)),
            "end": str(time.time_ns()),
            "limit": str(max(100, wanted.least)),
        }
        result = self._get(self._place.loki, "/loki/api/v1/query_range", fields)["data"]["result"]
        return sum(len(stream["values"]) for stream in result)

    def crowding(self, selector: str) -> float | None:
        """Return the most frequent event's share of the newest log lines, None if there are no lines."""
        fields = {"query": selector, "start": str(time.time_ns() - _LINES_NS), "limit": str(_LINES)}
        result = self._get(self._place.loki, "/loki/api/v1/query_range", fields)["data"]["result"]
        found = [_event(line) for stream in result for _, line, *_ in stream["values"]]
        return Counter(found).most_common(1)[0][1] / len(found) if found else None

    def level(self, dashboard: str, title: str, service: str) -> float | None:
        """Return the highest current value of a panel, None if it is empty; see `expressions`."""
        values = [value for each in expressions(dashboard, title, service) for value in self.query(each)]
        return max((value for value in values if math.isfinite(value)), default=None)

    def _get(self, root: str, path: str, fields: dict[str, str]) -> Any:
        answer = self._session.get(root + path, params=fields, timeout=_TIMEOUT)
        answer.raise_for_status()
        return answer.json()


def expressions(dashboard: str, title: str, service: str) -> list[str]:
    """Return the PromQL expressions of a panel.

    Args:
        dashboard: The dashboard.
        title: The panel's title.
        service: The value of the dashboard's service variable, if it has one. All routes are selected.
    """
    path = _DASHBOARDS / f"{dashboard}.json"
    if not path.exists():
        return []
    found = [each for each in _panels(json.loads(path.read_text(encoding="utf-8"))) if each.get("title") == title]
    return [
        re.sub(r"\$__(rate_interval|interval|range)", "15s", target["expr"])
        .replace("$service", service)
        .replace("$route", ".*")
        for each in found
        for target in each.get("targets", ())
        if "expr" in target and (target.get("datasource") or each.get("datasource") or {}).get("type") != "loki"
    ]


def _panels(node: dict[str, Any]) -> list[dict[str, Any]]:
    inner = node.get("panels", [])
    return [*inner, *(panel for each in inner for panel in _panels(each))]


def _is(wanted: Trace, span: dict[str, Any], process: dict[str, Any], now: float) -> bool:
    told = {tag["key"]: tag["value"] for tag in (*process.get("tags", ()), *span["tags"])}
    for event in span.get("logs", ()):
        told |= {field["key"]: field["value"] for field in event["fields"]}
    return (
        process["serviceName"] == wanted.service
        and span["operationName"] == wanted.operation
        and span["duration"] >= wanted.over * 1e6
        and (not wanted.ahead or span["startTime"] >= (now + wanted.ahead) * 1e6)
        and all(str(told.get(name)).lower() == str(value).lower() for name, value in wanted.attributes.items())
    )


def _parent(span: dict[str, Any]) -> str | None:
    return next((each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"), None)


def _event(line: str) -> str | None:
    """Return the event of a log line; None if it does not have the shop's format."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said.get("event") if isinstance(said, dict) else None


def _within(span: dict[str, Any], parent: dict[str, Any]) -> bool:
    """Return whether a span begins within its parent. It may end later if the parent does not wait for it."""
    early, late = parent["startTime"] - _OUTSIDE_US, parent["startTime"] + parent["duration"] + _OUTSIDE_US
    return bool(early <= span["startTime"] <= late)


def _unix(moment: str) -> float:
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", moment)).timestamp()
