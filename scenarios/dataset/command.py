"""`python -m scenarios dataset`."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from local.errors import LocalError
from observability.story.window import Window
from scenarios import describing, finding, flags
from scenarios.asking import Telemetry
from scenarios.dataset.gathering import Gathering
from scenarios.dataset.health import HEALTH
from scenarios.dataset.recording import Lengths, record
from scenarios.dataset.writing import Planned, rfc3339, write
from scenarios.describing import Fault
from scenarios.errors import ScenarioError
from scenarios.promises import noise

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from scenarios.place import Place

_LONGEST = 900
_ANSWER_SECONDS = 120
_BESIDE_SECONDS = 40
"""Seconds of a run in addition to the recorded time: to become calm, and for queries. Measured: mostly 32 to 49 s."""
_MEGABYTES_A_SECOND = 0.3
"""Megabytes of data per second, measured under the scenarios' load."""
_MINUTE = 60
_STOPPED = 130
_OWN = ("run-*/truth.json", "rcaeval", ".part-*")
"""Files by which a folder is recognised as a data set, complete or not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(act=run)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="which scenarios, or health (default: all, and health)"
    )
    parser.add_argument("--to", type=Path, default=Path("dataset"), metavar="FOLDER", help="where (default: dataset)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="each so many times, with seeds 1 to N")
    parser.add_argument(
        "--variants",
        default="",
        metavar="LIST",
        help="on,weak,strong: of faults that have them (default: the scenario's)",
    )
    lengths = Lengths()
    for name, says in (("before", "before the fault"), ("during", "of the fault"), ("after", "after it")):
        default = getattr(lengths, name)
        parser.add_argument(
            f"--{name}",
            type=float,
            default=default,
            metavar="SECONDS",
            help=f"what is recorded {says} (default: {default:.0f})",
        )
    parser.add_argument("--with-flags", action="store_true", help="leave in what tells of feature flags")
    parser.add_argument(
        "--ask", metavar="COMMAND", help="a tool that is run while each fault lasts, and prints its answer as JSON"
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FOLDER", help="where its answers go (default: answers, beside the runs)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Record the runs that are missing.

    Returns:
        The exit status: 0; 1 if a run could not be recorded; 130 after Ctrl-C.
    """
    lengths = Lengths(**{name: getattr(arguments, name) for name in ("before", "during", "after")})
    if not (10 <= lengths.before <= _LONGEST and 10 <= lengths.during <= _LONGEST and 0 <= lengths.after <= _LONGEST):  # noqa: PLR2004
        raise ScenarioError(f"Before and during take 10 to {_LONGEST} seconds each, and after at most {_LONGEST}.")
    if arguments.seeds < 1:
        raise ScenarioError("At least one seed: `--seeds 1`.")
    planned = _planned(arguments.names, arguments.seeds, [name for name in arguments.variants.split(",") if name])
    folder: Path = arguments.to
    _check(folder)
    left = [one for one in planned if not (folder / one.name).exists()]
    total = len(planned)
    if len(left) < total:
        print(f"{total - len(left)} of {total} are there already.")
    if not left:
        finding.find()  # undoes what a killed run has left
        print(f"All {total} are in {folder}.")
        return 0
    with finding.alone("make dataset") as where:
        each = _seconds(lengths)
        size = len(left) * (each - _BESIDE_SECONDS) * _MEGABYTES_A_SECOND
        print(
            f"{len(left)} to record into {folder}: about {_time(len(left) * each)} and {math.ceil(size)} MB.",
            flush=True,
        )
        try:
            failed = _record_all(left, total, where, lengths, arguments)
        except KeyboardInterrupt:
            print(f"\nStopped; the fault is off, and this run is not kept. The same command goes on in {folder}.")
            return _STOPPED
    if failed:
        print(f"{len(failed)} of {total} could not be recorded: {', '.join(failed)}.", "Run it again for these.")
    else:
        print(f"All {total} are in {folder}.")
    return 1 if failed else 0


def _seconds(lengths: Lengths) -> float:
    """Return how long one run takes, with the time before and after the recording."""
    return lengths.before + lengths.during + lengths.after + _BESIDE_SECONDS


def _record_all(
    left: list[Planned], total: int, where: Place, lengths: Lengths, arguments: argparse.Namespace
) -> list[str]:
    """Record the runs; those whose signals are quiet come first.

    Returns:
        The names of the runs that could not be recorded.
    """
    telemetry, began, tried, failed = Telemetry(where), time.monotonic(), 0, list[str]()
    while left:
        # A run's signals need a minute to disappear, so a scenario with other signals comes first.
        one = min(left, key=lambda each: len(noise(each.scenario, telemetry)))
        left.remove(one)
        pace = (time.monotonic() - began) / tried if tried else _seconds(lengths)
        ends = f"about {_time((len(left) + 1) * pace)} left"
        print(
            f"{total - len(left)} of {total}: {one.scenario.name} ({one.variant}, seed {one.seed}), {ends}", flush=True
        )
        tried += 1
        try:
            _record(one, where, lengths, arguments)
        except (LocalError, OSError, psutil.Error, KeyError) as error:
            failed.append(f"{one.scenario.name} ({one.variant}, seed {one.seed})")
            print(f"  left out: {error}", flush=True)
    return failed


def _check(folder: Path) -> None:
    """Reject a folder that contains something else."""
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"{folder} is no folder.")
    if folder.exists() and any(folder.iterdir()) and not any(any(folder.glob(each)) for each in _OWN):
        raise ScenarioError(f"{folder} has other files than a data set's: `TO=` a new folder, or an empty one.")


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / _MINUTE))
    return f"{minutes} min" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def _planned(names: Sequence[str], seeds: int, variants: Sequence[str]) -> list[Planned]:
    known = {flag.name: flag.variants for flag in flags.read(flags.DEFAULT)}
    found: list[Planned] = []
    for seed in range(1, seeds + 1):
        for name in names or (*describing.names(), HEALTH.name):
            scenario = HEALTH if name == HEALTH.name else describing.read(name)
            switch = scenario.switch
            own = [to for to in variants if isinstance(switch, Fault) and to in known.get(switch.fault, ())]
            for to in own:
                changed = scenario.model_copy(update={"switch": switch.model_copy(update={"to": to})})
                found.append(Planned(changed, seed))
            if not own:
                found.append(Planned(scenario, seed))
    return found


def _record(one: Planned, where: Place, lengths: Lengths, arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    folder: Path = arguments.to
    answer: list[str] = []

    def ask() -> None:
        if arguments.ask:
            answer.append(_answer(arguments.ask, where))

    recorded = record(one.scenario, where, one.seed, lengths, _say, ask)
    gathering = Gathering(where, Window(recorded.start, recorded.end), with_flags=arguments.with_flags)
    write(folder, one, recorded, gathering, _say)
    if answer:
        answers: Path = arguments.answers or folder / "answers"
        answers.mkdir(parents=True, exist_ok=True)
        (answers / f"{one.name}.json").write_text(answer[0], encoding="utf-8")
    counts = ", ".join(f"{number} {what}" for what, number in gathering.counts.found.items() if what != "traces")
    cut = f"; cut: {', '.join(sorted(gathering.counts.cut))}" if gathering.counts.cut else ""
    took = time.monotonic() - began
    print(f"  {folder / one.name}: {counts}{cut} ({took:.0f} s, off at {rfc3339(recorded.off)})", flush=True)


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _answer(command: str, where: Place) -> str:
    """Run a tool, and return its answer, which is not checked here; `grade` does that."""
    urls = {
        "GATEWAY_URL": where.gateway,
        "JAEGER_URL": where.jaeger,
        "LOKI_URL": where.loki,
        "PROMETHEUS_URL": where.prometheus,
    }
    _say(f"asking: {command}")
    try:
        done = subprocess.run(
            shlex.split(command),
            env={**os.environ, **urls},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        print(f"  it did not answer within {_ANSWER_SECONDS} s", file=sys.stderr, flush=True)
        return ""
    if done.returncode:
        print(f"  it ended with status {done.returncode}", file=sys.stderr, flush=True)
    return done.stdout
