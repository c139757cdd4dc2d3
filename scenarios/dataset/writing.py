"""Writes all files of a run, or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scenarios.dataset import openmetrics, otlp, rcaeval
from scenarios.dataset.health import HEALTH
from scenarios.describing import Fault, Replica, Restart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scenarios.dataset.gathering import Gathering
    from scenarios.dataset.recording import Recorded
    from scenarios.describing import Scenario

TRUTH, TELEMETRY, RCAEVAL = "truth.json", "telemetry", "rcaeval"


@dataclass(frozen=True)
class Planned:
    """A run before it is written."""

    scenario: Scenario
    seed: int

    @property
    def variant(self) -> str:
        """The fault's variant, such as its strength."""
        switch = self.scenario.switch
        if isinstance(switch, Fault | Restart | Replica) and switch.fault is not None:
            return switch.to
        return "on"

    @property
    def name(self) -> str:
        """The name of its folder. It is always the same for this run, and does not reveal the fault."""
        said = f"{self.scenario.name}/{self.variant}/{self.seed}"
        return f"run-{hashlib.sha256(said.encode()).hexdigest()[:8]}"

    def truth(self, recorded: Recorded, *, with_flags: bool) -> dict[str, Any]:
        """Return the truth: what was wrong, and when."""
        scenario = self.scenario
        key, _, value = (scenario.truth.attribute or "").partition("=")
        hidden = key.startswith("feature_flag.") and not with_flags
        attribute = ({"key": key} | ({"value": value} if value else {})) if key and not hidden else None
        names = ("start", "end") if scenario is HEALTH else ("start", "on", "off", "end")
        times = {name: getattr(recorded, name) for name in names}
        return {
            "service": scenario.truth.service,
            "operation": scenario.truth.operation,
            "attribute": attribute,
            "scenario": scenario.name,
            "kind": scenario.kind,
            "seed": self.seed,
            "variant": self.variant,
            **{name: rfc3339(at) for name, at in times.items()},
            **{f"{name}_unix": round(at, 3) for name, at in times.items()},
            "effect": {
                "felt": scenario.effect.felt,
                "measure": recorded.measured,
                "before": recorded.before,
                "during": recorded.during,
            },
            "runbook": scenario.runbook,
        }


def rfc3339(at: float) -> str:
    """Format a time in UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(
    folder: Path,
    planned: Planned,
    recorded: Recorded,
    gathering: Gathering,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Fetch all telemetry of a run, and write it."""
    wanted = {planned.name: "run"}
    if planned.scenario is not HEALTH:  # RCAEval has no such cases
        wanted = {f"{RCAEVAL}/{rcaeval.case(planned.scenario, planned.variant, planned.seed)}": "case", **wanted}
    with _whole(folder, wanted) as part:
        run, telemetry = part / "run", part / "run" / TELEMETRY
        telemetry.mkdir()
        with contextlib.ExitStack() as files:
            beside = rcaeval.Case(part / "case", gathering, recorded.on, files)
            say("asking Jaeger")
            traces = files.enter_context((telemetry / "traces.jsonl").open("w", encoding="utf-8"))
            for trace in gathering.traces():
                traces.write(otlp.text(otlp.of_trace(trace)))
                beside.add_trace(trace)
            say("asking Loki")
            logs = files.enter_context((telemetry / "logs.jsonl").open("w", encoding="utf-8"))
            for lines in gathering.lines():
                if lines:
                    logs.write(otlp.text(otlp.of_lines(lines)))
                    beside.add_lines(lines)
            say("asking Prometheus")
            openmetrics.write(gathering, files.enter_context((telemetry / "metrics.txt").open("wb")))
            beside.close()
        window = gathering.window
        about = {
            "start": rfc3339(window.start),
            "end": rfc3339(window.end),
            "start_unix": window.start,
            "end_unix": window.end,
            **gathering.counts.found,
            "cut": sorted(gathering.counts.cut),
        }
        write_json(telemetry / "about.json", about)
        write_json(run / TRUTH, planned.truth(recorded, with_flags=gathering.with_flags))


def write_json(path: Path, value: object) -> None:
    """Write JSON with indentation."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _whole(folder: Path, wanted: dict[str, str]) -> Iterator[Path]:
    """Yield a temporary folder. Its parts are renamed when all are written; the last one marks the run as complete."""
    part = folder / f".part-{list(wanted)[-1]}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name in ("case", "run"):
            (part / name).mkdir(parents=True)
        yield part
        for path, name in wanted.items():
            shutil.rmtree(folder / path, ignore_errors=True)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (part / name).rename(folder / path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
