"""An example tool and baseline: it blames the operations with the most own time in all traces.

It reads a run's traces.jsonl, and needs nothing else of this project:

    python scenarios/dataset/slowest_span.py dataset/run-2697eda2/telemetry > answer.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

_MOST = 5


def main(folder: Path) -> None:
    """Print the answer."""
    own: Counter[tuple[str, str]] = Counter()
    with (folder / "traces.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            own.update(_own_times(json.loads(line)))
    causes = [{"service": service, "operation": operation} for (service, operation), _ in own.most_common(_MOST)]
    print(json.dumps({"causes": causes}, indent=2))


def _own_times(trace: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return the own time of each operation, without the time of its children, in nanoseconds."""
    spans: list[tuple[str, dict[str, Any]]] = []
    for group in trace["resourceSpans"]:
        told = {one["key"]: one["value"] for one in group["resource"]["attributes"]}
        service = told["service.name"]["stringValue"]
        spans += [(service, span) for scope in group["scopeSpans"] for span in scope["spans"]]
    children: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for _, span in spans:
        children[span.get("parentSpanId", "")].append(_times(span))
    own: Counter[tuple[str, str]] = Counter()
    for service, span in spans:
        begin, end = _times(span)
        reached, busy = begin, 0
        for start, stop in sorted(children[span["spanId"]]):
            busy += max(0, min(stop, end) - max(start, reached))
            reached = max(reached, min(stop, end))
        own[service, span.get("name", "")] += end - begin - busy
    return own


def _times(span: dict[str, Any]) -> tuple[int, int]:
    return int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
