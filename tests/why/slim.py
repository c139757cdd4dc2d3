"""Makes a recording small enough to be kept with the tests: `python -m tests.why.slim RUN [RUN ...]`.

Ids become short, times are rounded, and what nobody reasons about is dropped. Where a run said that its fault is
simulated, that is taken out, too.
"""

import json
import sys
from pathlib import Path

from observability.why import recording

FOLDER = Path(__file__).parent / "recordings"
MICROSECONDS = 200
DROPPED = ("otel.scope.", "telemetry.", "network.", "url.", "deployment.", "db.query.", "db.namespace", "internal.",
           "http.route", "http.request.method", "db.operation", "db.collection", "shop.order.id")  # fmt: skip


def slim(kept):
    """Make it small, in place."""
    recording.without_flags(kept)
    short = {}

    def name(text):
        return short.setdefault(text, f"{len(short):x}")

    searches = [key for key, value in kept.answers.items() if '"search"' in key and isinstance(value, list)]
    found = dict.fromkeys(one for key in searches for one in kept.answers[key])
    kept.traces = {name(one): kept.traces[one] for one in found}
    for trace_id, trace in kept.traces.items():
        trace["traceID"] = trace_id
        for process in trace["processes"].values():
            process["tags"] = _tags(process["tags"])
        for span in trace["spans"]:
            span["traceID"], span["spanID"] = trace_id, name(span["spanID"])
            span["tags"] = _tags(span["tags"])
            begin, end = (_rounded(time) for time in (span["startTime"], span["startTime"] + span["duration"]))
            span["startTime"], span["duration"] = begin, end - begin
            for each in span["references"]:
                each["traceID"], each["spanID"] = name(each["traceID"]), name(each["spanID"])
            for unused in ("warnings", "flags"):
                span.pop(unused, None)
    for key in searches:
        kept.answers[key] = [name(one) for one in kept.answers[key]]


def _rounded(time):
    return time // MICROSECONDS * MICROSECONDS


def _tags(tags):
    return [{"key": one["key"], "value": one["value"]} for one in tags if not one["key"].startswith(DROPPED)]


if __name__ == "__main__":
    for run in map(Path, sys.argv[1:]):
        kept = recording.read(run / "evidence.json.gz")
        slim(kept)
        target = FOLDER / run.name.partition(".")[0]
        target.mkdir(parents=True, exist_ok=True)
        kept.write(target / "evidence.json.xz")
        truth = json.loads((run / "truth.json").read_text())
        told = {name: truth.get(name) for name in ("service", "operation", "attribute", "scenario", "seed", "variant")}
        (target / "truth.json").write_text(json.dumps(told, indent=1) + "\n")
        print(run.name, (target / "evidence.json.xz").stat().st_size)
