"""Measures the accuracy of `make why`: switches faults on under load, and compares its answers with the truth.

The backends' results are recorded, so that a change of the analysis can be measured on the same faults again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.errors import LocalError
from local.settings import PROJECT
from observability.story.apis import Jaeger, Loki, Prometheus
from observability.why import recording
from observability.why.baselines import BASELINES
from observability.why.diagnose import diagnose
from observability.why.gather import PATIENCE_EACH, Backends
from observability.why.grade import grade, summary
from scenarios import acting, describing, finding, flags, shopping
from scenarios.asking import Telemetry
from scenarios.describing import Fault, Load
from scenarios.measuring import Measure, Observer
from scenarios.shopping import Customers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scenarios.describing import Scenario, Switch
    from scenarios.place import Place

PAIRS = (
    ("payment-down", "product-slow"),
    ("keys-unreadable", "currency-slow"),
    ("disk-full", "payment-slow"),
    ("payment-slow", "product-slow"),
    ("orders-lock", "user-slow"),
    ("product-errors", "payment-slow"),
    ("payment-flaky", "cpu-burn"),
    ("orders-column", "product-slow"),
    ("payment-declines", "currency-slow"),
    ("payment-down", "log-flood"),
    ("disk-full", "product-slow"),
    ("payment-slow", "label-explosion"),
)
"""Two faults at the same time, the one that costs users more first."""
OURS = "make why"
BACKGROUND = Load(orders=3, customers=4)
"""The load that is always there, in addition to the scenario's own customers."""
_STRENGTHS = ("weak", "on", "strong")
_WARM_SECONDS, _LONGEST_SECONDS, _AFTER_EFFECT_SECONDS, _SHORTEST_SECONDS = 6.0, 40.0, 8.0, 18.0
_CALM_SECONDS, _LONGEST_CALM_SECONDS = 12.0, 45.0
_WINDOW_SECONDS, _PAUSE_SECONDS = 3.0, 0.5
_SLACK_SECONDS = 3.0
"""Seconds by which the reported beginning is too early, since nobody knows it exactly."""
_FAILURE_SECONDS, _MINUTE_SECONDS = 3.0, 60.0
_HEALTH = "health"
_FOLDER = PROJECT / ".run" / "accuracy"
_TRUTH, _EVIDENCE = "truth.json", "evidence.json.gz"


@dataclass(frozen=True)
class Case:
    """A scenario, or several at once, with a seed.

    Attributes:
        scenarios: The scenarios, the worse one first.
        seed: Determines the customers' choices, the load, and the fault's strength.
    """

    scenarios: tuple[Scenario, ...]
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{'+'.join(each.name for each in self.scenarios)}.{self.seed}"

    def switch(self, scenario: Scenario, known: Mapping[str, Sequence[str]]) -> tuple[Switch, str]:
        """Return the switch and its variant. If the flag has several strengths, the seed chooses one."""
        switch = scenario.switch
        if not isinstance(switch, Fault) or switch.to not in _STRENGTHS:
            return switch, getattr(switch, "to", "")
        strengths = [each for each in _STRENGTHS if each in known[switch.fault]]
        chosen = strengths[(self.seed + _number(scenario.name)) % len(strengths)]
        return switch.model_copy(update={"to": chosen}), chosen

    def load(self, scenario: Scenario) -> Load:
        """Return the load: the scenario's load, or down to half of it, by the seed."""
        share = random.Random(f"{self.name} load").uniform(0.5, 1.0)
        return scenario.load.model_copy(update={"orders": round(scenario.load.orders * share, 1)})


def _number(text: str) -> int:
    """Return a number for a text, the same in every process."""
    return sum(text.encode())


def run(cases: Iterable[Case], shop: Place, folder: Path, say: Callable[[str], None]) -> None:
    """Run all cases that are not recorded yet, one after the other, and record the backends' results."""
    with Customers(shop.gateway, BACKGROUND, 0):
        for case in cases:
            where = folder / case.name
            if (where / _TRUTH).exists():
                continue
            try:
                _Run(case, shop, say).go(where)
            except (LocalError, OSError) as error:
                say(f"{case.name}: {error}")
                time.sleep(_CALM_SECONDS)


class _Run:
    """One run of one case."""

    def __init__(self, case: Case, shop: Place, say: Callable[[str], None]) -> None:
        self._case, self._place, self._say = case, shop, say
        self._known = {each.name: each.variants for each in flags.read(shop.flags)}

    def go(self, where: Path) -> None:
        """Run the case, and write the recording to a folder."""
        first = self._case.scenarios[0]
        with (
            Customers(self._place.gateway, self._case.load(first), self._case.seed) as customers,
            Observer(self._place, customers) as observer,
            contextlib.ExitStack() as others,
        ):
            crowds = [customers]
            for scenario in self._case.scenarios[1:]:
                crowd = Customers(self._place.gateway, self._case.load(scenario), self._case.seed)
                crowds.append(others.enter_context(crowd))
            telemetry = Telemetry(self._place)
            measures = [
                Measure(scenario.effect, telemetry, crowd, observer)
                for scenario, crowd in zip(self._case.scenarios, crowds, strict=True)
            ]
            time.sleep(_WARM_SECONDS)
            before = customers.between(time.monotonic() - _WARM_SECONDS, time.monotonic())
            variants = []
            with contextlib.ExitStack() as faults:
                on = time.time()
                for scenario in self._case.scenarios:
                    switch, variant = self._case.switch(scenario, self._known)
                    variants.append(variant)
                    faults.enter_context(acting.on(switch, self._place))
                felt = self._await_effect(measures)
                at = time.time()
                kept, _ = recording.record(_backends(self._place), at, min(on, at - 10) - _SLACK_SECONDS)
                asked = round(time.time() - at, 2)
                during = customers.between(time.monotonic() - (time.time() - on), time.monotonic())
            off = time.time()
            truth = {
                "service": first.truth.service,
                "operation": first.truth.operation,
                "attribute": _attribute(first.truth.attribute),
                "scenario": "+".join(each.name for each in self._case.scenarios),
                "kind": first.kind,
                "seed": self._case.seed,
                "variant": "+".join(variants),
                "on": on,
                "asked": at,
                "off": off,
                "seconds": asked,
                "felt": felt,
                "lost": round(_lost(during, before) / (time.time() - on), 2),
                "load": _load(),
            }
            _write(where, kept, truth)
            self._tell(where, truth)
            self._await_calm(measures)

    def _await_effect(self, measures: Sequence[Measure]) -> list[bool]:
        """Wait until users feel each fault, and a little longer; return which were felt."""
        began, felt, since = time.monotonic(), [False] * len(measures), 0.0
        while (past := time.monotonic() - began) < _LONGEST_SECONDS:
            time.sleep(_PAUSE_SECONDS)
            for index, (measure, scenario) in enumerate(zip(measures, self._case.scenarios, strict=True)):
                value = measure(min(_WINDOW_SECONDS, past))
                felt[index] = felt[index] or (value is not None and value >= scenario.effect.during)
            if all(felt):
                since = since or past
                if past >= max(_SHORTEST_SECONDS, since + _AFTER_EFFECT_SECONDS):
                    break
        return felt

    def _await_calm(self, measures: Sequence[Measure]) -> None:
        """Wait until users feel no fault, and a while longer, so that the next run begins after a healthy time."""
        began = time.monotonic()
        time.sleep(_CALM_SECONDS)
        while time.monotonic() - began < _LONGEST_CALM_SECONDS:
            values = [measure(_WINDOW_SECONDS) for measure in measures]
            limits = [scenario.effect.before for scenario in self._case.scenarios]
            if all(value is not None and value <= limit for value, limit in zip(values, limits, strict=True)):
                return
            time.sleep(_PAUSE_SECONDS)

    def _tell(self, where: Path, truth: Mapping[str, Any]) -> None:
        judged = judge(where)
        right = [f"{name} {'right' if fits else 'WRONG'}" for name, fits in judged.grades[OURS].items()
                 if name.endswith("@1") and fits is not None]  # fmt: skip
        felt = "" if all(truth["felt"]) else "  (not felt)"
        self._say(f"{self._case.name} {truth['variant']}: {', '.join(right)}{felt}")


def _attribute(told: str | None) -> dict[str, str] | None:
    """Parse `key=value`, or a key alone."""
    if told is None:
        return None
    key, equals, value = told.partition("=")
    return {"key": key} | ({"value": value} if equals else {})


def _load() -> float:
    """Return the load average of the last minute."""
    return float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0])


def _lost(during: Sequence[shopping.Answer], before: Sequence[shopping.Answer]) -> float:
    """Return the seconds that users lost: three for each failure, and the extra time of other requests."""
    usual: dict[str, list[float]] = {}
    for answer in before:
        usual.setdefault(answer.route, []).append(answer.seconds)
    middle = {route: sorted(times)[len(times) // 2] for route, times in usual.items()}
    return sum(
        _FAILURE_SECONDS
        if not answer.status or answer.status >= 500 or answer.status in {202, 402, 429}  # noqa: PLR2004
        else max(answer.seconds - middle.get(answer.route, answer.seconds), 0)
        for answer in during
    )


def _backends(shop: Place) -> Backends:
    return Backends(
        Jaeger(shop.jaeger, seconds=PATIENCE_EACH),
        Loki(shop.loki, seconds=PATIENCE_EACH),
        Prometheus(shop.prometheus, PATIENCE_EACH),
    )


def watch(minutes: int, shop: Place, folder: Path, say: Callable[[str], None]) -> None:
    """Run `make why` once a minute while nothing is wrong, under the background load only."""
    with Customers(shop.gateway, BACKGROUND, 0):
        for number in range(minutes):
            time.sleep(_MINUTE_SECONDS)
            at = time.time()
            kept, _ = recording.record(_backends(shop), at)
            truth = {"service": None, "scenario": _HEALTH, "seed": number, "asked": at, "load": _load()}
            _write(folder / f"{_HEALTH}.{number}", kept, {**truth, "seconds": round(time.time() - at, 2)})
            say(f"{_HEALTH}.{number}: {diagnose(kept.evidence()).state}")


def _write(where: Path, kept: recording.Recording, truth: Mapping[str, Any]) -> None:
    where.mkdir(parents=True, exist_ok=True)
    kept.write(where / _EVIDENCE)
    (where / _TRUTH).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Judged:
    """The methods' answers about one recording, and their grades.

    Attributes:
        truth: The content of the run's truth file.
        grades: The grades by method.
        with_flags: The same, with evidence that reveals simulated faults.
        causes: The first three services and operations that `make why` named.
    """

    truth: dict[str, Any]
    grades: dict[str, dict[str, bool | None]]
    with_flags: dict[str, dict[str, bool | None]]
    causes: list[str]


def judge(where: Path) -> Judged:
    """Grade each method's answer about a recording."""
    truth = json.loads((where / _TRUTH).read_text(encoding="utf-8"))
    real = dict(truth)
    if str((truth.get("attribute") or {}).get("key")).startswith("feature_flag."):
        real["attribute"] = None  # without flags it cannot be found
    kept = recording.read(where / _EVIDENCE)
    with_flags, _ = _graded(kept, truth)
    recording.without_flags(kept)
    grades, causes = _graded(kept, real)
    return Judged(truth, grades, with_flags, causes)


def _graded(kept: recording.Recording, truth: Mapping[str, Any]) -> tuple[dict[str, dict[str, bool | None]], list[str]]:
    evidence = kept.evidence()
    answers = {name: method(evidence).plain() for name, method in {OURS: diagnose, **BASELINES}.items()}
    said = [_words(cause) for cause in answers[OURS]["causes"][:3]]
    if answers[OURS]["state"] != "wrong":
        said.insert(0, f"({answers[OURS]['state']})")
    return {name: grade(answer, truth) for name, answer in answers.items()}, said


def _words(cause: Mapping[str, Any]) -> str:
    told = [f"{one['key']}={one['value']}" for one in cause["attributes"][:3]]
    return f"{cause['service']} {cause['operation']} [{', '.join(told)}]"


def results(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the results: for each method over single faults, pairs and health checks, and for each run."""
    alone = [one for one in judged if one.truth["service"] and "+" not in one.truth["scenario"]]
    groups = {
        "faults": [one for one in alone if all(one.truth["felt"])],
        "not felt": [one for one in alone if not all(one.truth["felt"])],
        "pairs": [one for one in judged if "+" in one.truth["scenario"]],
        "health": [one for one in judged if not one.truth["service"]],
    }
    seconds = sorted(one.truth["seconds"] for one in judged)
    loads = sorted(one.truth["load"] for one in judged)
    return {
        "runs": {name: len(those) for name, those in groups.items()},
        "seeds": sorted({one.truth["seed"] for one in alone}),
        "seconds": {"median": _middle(seconds), "longest": seconds[-1]} if seconds else {},
        "load": {"median": _middle(loads), "highest": loads[-1]} if loads else {},
        **{
            name: {method: summary(one.grades[method] for one in those) for method in (OURS, *BASELINES)}
            for name, those in groups.items()
            if those
        },
        "by seed": {
            str(seed): summary(one.grades[OURS] for one in groups["faults"] if one.truth["seed"] == seed)
            for seed in sorted({one.truth["seed"] for one in groups["faults"]})
        },
        "with flags": {
            method: summary(one.with_flags[method] for one in groups["faults"]) for method in (OURS, *BASELINES)
        },
        "each": [
            {
                **{name: one.truth.get(name) for name in ("scenario", "seed", "variant", "felt", "lost", "seconds")},
                "right": {name: right for name, right in one.grades[OURS].items() if right is not None},
                "said": one.causes,
            }
            for one in judged
            if one.truth["service"] or one.grades[OURS]["false_alarm"]
        ],
    }


def _middle(ordered: Sequence[float]) -> float:
    return ordered[len(ordered) // 2]


def _about(tuned: str) -> dict[str, Any]:
    """Return when and where it was measured, and the notes about the runs."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "processors": os.cpu_count(),
        "tuned": tuned,
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the results as a table for people."""
    lines = []
    for group in ("faults", "with flags", "not felt", "pairs", "health"):
        for method, shares in found.get(group, {}).items():
            told = [
                f"{name} {share:.0f}" if name == "false_alarms" else f"{name} {share:.0%}"
                for name, share in shares.items()
                if share is not None and (name != "false_alarms" or group == "health")
            ]
            lines.append(f"{group:<10} {method:<22} {'  '.join(told)}")
    wrong = [one for one in found["each"] if not all(one["right"].values()) or one["right"].get("false_alarm")]
    lines += ["", *(_mistake(one) for one in wrong), "", f"{found['runs']}, answered within {found['seconds']} s"]
    return "\n".join(lines)


def _mistake(one: Mapping[str, Any]) -> str:
    missed = [name for name, right in one["right"].items() if not right]
    return f"{one['scenario']}.{one['seed']} {one['variant']}: not {', '.join(missed)}; said {'; '.join(one['said'])}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(act=act)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which scenarios; two at once as A+B (default: all)")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help=f"where runs are kept (default: {_FOLDER})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    parser.add_argument("--pairs", action="store_true", help="pairs of faults at once, too")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="run nothing: reason about what was kept there")
    parser.add_argument("--health", type=int, metavar="MINUTES", help="ask for so long while nothing is wrong")
    parser.add_argument("--tuned", default="", metavar="TEXT", help="notes for the results, one a line")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results to a file")


def act(asked: argparse.Namespace) -> int:
    """Run or replay the cases, and print the table."""
    folder = asked.replay or asked.folder
    if not asked.replay:
        with finding.alone("make accuracy") as shop:
            if asked.health:
                watch(asked.health, shop, folder, _say)
            else:
                run(_cases(asked), shop, folder, _say)
    with ProcessPoolExecutor() as workers:
        found = results(list(workers.map(judge, sorted(path.parent for path in folder.glob(f"*/{_TRUTH}")))))
    print(table(found))
    if asked.json:
        asked.json.write_text(json.dumps(_about(asked.tuned) | found, indent=1) + "\n", encoding="utf-8")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _cases(asked: argparse.Namespace) -> Iterator[Case]:
    """Return the cases in an order that the seed determines."""
    names = [tuple(name.split("+")) for name in asked.names or describing.names()]
    for seed in asked.seeds:
        groups = [*names, *(PAIRS if asked.pairs else ())]
        random.Random(seed).shuffle(groups)
        yield from (Case(tuple(map(describing.read, group)), seed) for group in groups)
