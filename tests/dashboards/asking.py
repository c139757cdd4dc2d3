"""Asks a query as Grafana does, and says what is wrong with the answer."""

import math
import re
import time

EMPTY_WHEN_HEALTHY = {
    "overview: Alerts that fire, A": "a healthy shop has no alert; test_expressions.py has some",
    "overview: Alerts, over time, A": "the same",
    "overview: Errors in the logs, A": "a healthy shop has none; test_logs.py has some",
    "overview: Errors in the logs, B": "the same",
    "overview: Errors in the logs, C": "the same",
    "service: Log lines by level, B": "only nginx writes lines that are no JSON; test_logs.py",
    "service: Log, B": "nginx has no events but requests, and a quiet service few; test_logs.py",
    "service: Log, C": "only nginx writes lines that are no JSON; test_logs.py",
}
"""Queries without an answer where all is well, and why; what they answer else, another test says."""

# What is added so that there is always something to show must not hide that there is nothing.
FALLBACK = re.compile(r"\s+or\s+(on \(\)\s+)?(vector\(0\)|label_replace\(vector\(0\),[^()]*\))\s*$")

SECONDS = 60
TO_SEARCH = 600
NOTHING = "no series"
NO_LINE = "no line"


class Backends:
    """Where the queries go: clients of Prometheus, Loki and Jaeger."""

    def __init__(self, prometheus, loki, jaeger):
        self.prometheus = prometheus
        self.loki = loki
        self.jaeger = jaeger

    def fault(self, query):
        """What is wrong with the answer to a query, None if nothing is: it has to be there, and of finite numbers."""
        ask = {"prometheus": self._promql, "loki": self._logql, "jaeger": self._search}[query.source]
        fault = ask(query.fields)
        return None if fault in {NOTHING, NO_LINE} and query.place in EMPTY_WHEN_HEALTHY else fault

    def _promql(self, fields):
        expr = FALLBACK.sub("", fields["expr"])
        now = time.time()
        if fields.get("instant"):
            answer = self.prometheus.get("/api/v1/query", params={"query": expr, "time": now})
        else:
            window = {"start": now - SECONDS, "end": now, "step": 5}
            answer = self.prometheus.get("/api/v1/query_range", params={"query": expr, **window})
        return answer.text if answer.status_code != 200 else _no_numbers(answer.json()["data"]["result"])

    def _logql(self, fields):
        now = time.time()
        parameters = {
            "query": fields["expr"],
            "start": int((now - TO_SEARCH) * 1e9),
            "end": int(now * 1e9),
            "step": "15s",
            "limit": 100,
        }
        answer = self.loki.get("/loki/api/v1/query_range", params=parameters)
        if answer.status_code != 200:
            return answer.text
        data = answer.json()["data"]
        if data["resultType"] == "streams":
            return None if any(stream["values"] for stream in data["result"]) else NO_LINE
        return _no_numbers(data["result"])

    def _search(self, fields):
        now = time.time()
        if fields["queryType"] == "dependencyGraph":
            answer = self.jaeger.get("/api/dependencies", params={"lookback": TO_SEARCH * 1000})
            return None if answer.json()["data"] else "no calls"
        parameters = {
            "service": fields["service"],
            "minDuration": fields["minDuration"],
            "limit": fields["limit"],
            "start": int((now - TO_SEARCH) * 1e6),
            "end": int(now * 1e6),
        }
        if "operation" in fields:
            parameters["operation"] = fields["operation"]
        answer = self.jaeger.get("/api/traces", params=parameters)
        if answer.status_code != 200:
            return answer.text
        return None if answer.json()["data"] else "no trace"

    def exemplars(self, expr):
        """The trace ids of the exemplars that Grafana draws beside a query."""
        now = time.time()
        window = {"start": now - SECONDS, "end": now}
        answer = self.prometheus.get("/api/v1/query_exemplars", params={"query": expr, **window})
        assert answer.status_code == 200, answer.text
        return [one["labels"]["trace_id"] for series in answer.json()["data"] for one in series["exemplars"]]

    def opens(self, trace_id):
        """Whether there is such a trace."""
        return self.jaeger.get(f"/api/traces/{trace_id}").status_code == 200

    def values_of_variable(self, variable):
        """What a variable with a query `label_values(series, label)` offers."""
        query = variable["query"]["query"].replace("$service", "order-service")
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        answer = self.prometheus.get(f"/api/v1/label/{label}/values", params={"match[]": series})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def _no_numbers(result):
    if not result:
        return NOTHING
    for series in result:
        for _, value in series.get("values") or [series["value"]]:
            if not math.isfinite(float(value)):
                return f"{value} of {series['metric']}"
    return None
