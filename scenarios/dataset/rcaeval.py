"""Writes a run as RCAEval's loader reads it (github.com/phamquiluan/RCAEval, `main.py`).

`{service}_{fault}/{case}/` with `data.csv` (`time`, `{service}_{metric}`, each second), `inject_time.txt`, `logts.csv`,
`tracets_err.csv`, `tracets_lat.csv` (each 15 seconds) and `traces.csv`. RCAEval splits names at underscores, so each
column's name has exactly one.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from observability.why.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from scenarios.dataset.gathering import Gathering, Line
    from scenarios.describing import Scenario

STEP = 15
_ASKED = "http_server_request_duration_seconds"
_QUANTILE = f"histogram_quantile(%s, sum by (job, le) (rate({_ASKED}_bucket[15s])))"
_METRICS = {
    "cpu": "sum by (job) (rate(process_cpu_seconds_total[15s]))",
    "mem": "max by (job) (process_resident_memory_bytes)",
    "latency-50": _QUANTILE % 0.5,
    "latency-90": _QUANTILE % 0.9,
    "workload": f"sum by (job) (rate({_ASKED}_count[15s]))",
    "error": f'sum by (job) (rate({_ASKED}_count{{http_response_status_code=~"5.."}}[15s]))'
    f" or sum by (job) (rate({_ASKED}_count[15s])) * 0",
}
_HAVE = {"processor", "memory"}
_FAULTS = {"cpu-burn": "cpu", "memory-leak": "mem", "link-slow": "delay", "link-lossy": "loss"}
"""Scenarios that match one of RCAEval's six faults; its summary has only these. All of kind `latency` are `delay`."""
_SPAN_COLUMNS = (
    *("time", "traceID", "spanID", "serviceName", "methodName", "operationName"),
    *("startTimeMillis", "startTime", "duration", "statusCode", "parentSpanID"),
)
_Table = dict[str, dict[int, float]]


def case(scenario: Scenario, variant: str, seed: int) -> str:
    """Return the folder of a run, relative to the data set's."""
    fault = "delay" if scenario.kind == "latency" else _FAULTS.get(scenario.name, scenario.name)
    return f"{_name(scenario.truth.service)}_{fault}/{scenario.name}-{variant}-{seed}"


class Case:
    """A run in RCAEval's format, while it is written.

    Args:
        folder: The run's folder.
        gathering: Fetches the metrics.
        injected: The time at which the fault began, in seconds since 1970.
        files: Closes the files at the end.
    """

    def __init__(self, folder: Path, gathering: Gathering, injected: float, files: ExitStack) -> None:
        self._folder = folder
        self._gathering = gathering
        self._times = range(int(gathering.window.start), int(gathering.window.end))
        (folder / "inject_time.txt").write_text(f"{int(injected)}\n", encoding="utf-8")
        self._spans = csv.writer(files.enter_context((folder / "traces.csv").open("w", encoding="utf-8", newline="")))
        self._spans.writerow(_SPAN_COLUMNS)
        self._errors: _Table = defaultdict(lambda: defaultdict(float))
        self._durations: _Table = defaultdict(lambda: defaultdict(float))
        self._counts: _Table = defaultdict(lambda: defaultdict(float))
        self._lines: _Table = defaultdict(lambda: defaultdict(float))

    def add_trace(self, trace: Mapping[str, Any]) -> None:
        """Write the spans of a trace."""
        for span in trace["spans"]:
            service = trace["processes"][span["processID"]]["serviceName"]
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            parent = next((one["spanID"] for one in span["references"] or () if one["refType"] == "CHILD_OF"), "")
            start, duration = span["startTime"], span["duration"]
            failed = tags.get("error") in {True, "true"}
            status = tags.get("http.response.status_code", "")
            self._spans.writerow(
                (
                    *(start // 10**6, span["traceID"], span["spanID"], service),
                    *(span["operationName"], span["operationName"]),
                    *(start // 1000, start, duration, status, parent),
                )
            )
            column, slot = f"{_name(service)}_{_name(span['operationName'])}", self._slot(start / 1e6)
            self._errors[column][slot] += failed
            self._durations[column][slot] += duration
            self._counts[column][slot] += 1

    def add_lines(self, lines: Iterable[Line]) -> None:
        """Count log lines."""
        for line in lines:
            column = f"{_name(line.labels.get('service_name', 'unknown'))}_{_name(_event(line.text))}"
            self._lines[column][self._slot(line.time / 1e9)] += 1

    def close(self) -> None:
        """Write the files that need sums, and the metrics."""
        slots = [self._times.start + number for number in range(0, len(self._times), STEP)]
        latencies: _Table = {
            column: {slot: durations[slot] / count for slot, count in self._counts[column].items()}
            for column, durations in self._durations.items()
        }
        self._write("logts.csv", slots, self._lines, otherwise=0)
        self._write("tracets_err.csv", slots, self._errors, otherwise=0)
        self._write("tracets_lat.csv", slots, latencies)
        self._write("data.csv", self._times, self._metrics())

    def _metrics(self) -> _Table:
        found: _Table = {}
        asked = [(name, query, "") for name, query in _METRICS.items()]
        asked += [(one.name, one.query, one.service) for one in SIGNALS if one.name not in _HAVE]
        for name, query, service in asked:
            for one in self._gathering.over(query, 1):
                whose = service or one["metric"].get("job", "")
                if whose:
                    values = {int(float(at)): float(value) for at, value in one["values"]}
                    found[f"{_name(whose)}_{_name(name)}"] = values
        return found

    def _slot(self, at: float) -> int:
        start = self._times.start
        return start + int((at - start) // STEP) * STEP

    def _write(self, name: str, times: Iterable[int], table: _Table, otherwise: float | None = None) -> None:
        columns = sorted(table)
        with (self._folder / name).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("time", *columns))
            for at in times:
                rows.writerow((at, *(_cell(table[column].get(at, otherwise)) for column in columns)))


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.10g}"


def _name(text: str) -> str:
    """Return a name without underscores, and without `-db`, which RCAEval removes."""
    return text.replace("-db", "db").replace("_", "-").replace(" ", "-")


def _event(text: str) -> str:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    return str(said.get("event") or "other") if isinstance(said, dict) else "other"
