"""What was recorded of real runs is judged as it was, and alike if all in it has another name."""

import json
import random
import re
import string
from pathlib import Path

import pytest

from observability.why import recording
from observability.why.diagnose import diagnose
from observability.why.grade import grade

FOLDER = Path(__file__).parent / "recordings"
RUNS = sorted(path.parent for path in FOLDER.glob("*/truth.json"))
ITS_OWN = ("shop.",)
"""What attributes of the shop's own begin with. Those of the conventions mean something, and keep their names."""
VALUES = (*ITS_OWN, "service.version", "service.instance.id", "error.type", "exception.")
"""Whose values are changed, too: products, currencies, releases, replicas, classes of exceptions."""


def run_of(folder):
    return recording.read(folder / "evidence.json.xz"), json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def verdict(kept):
    answer = diagnose(kept.evidence())
    causes = [
        (cause.service, cause.operation, cause.kind, [(one.key, one.value) for one in cause.attributes], cause.impact)
        for cause in answer.causes
    ]
    return answer.state, causes


class Names:
    """Gives everything another name and value, always the same."""

    def __init__(self, kept, seed):
        self._rng, self._known, self._values = random.Random(seed), {}, {}
        spans = [span for trace in kept.traces.values() for span in trace["spans"]]
        processes = [one for trace in kept.traces.values() for one in trace["processes"].values()]
        counted = [one["metric"] for question, answer in kept.answers.items()
                   if '"count"' in question and isinstance(answer, list) for one in answer]  # fmt: skip
        own = {one["serviceName"] for one in processes} | {span["operationName"] for span in spans}
        own |= {tag["key"] for span in spans for tag in span["tags"] if tag["key"].startswith(ITS_OWN)}
        own |= {metric["event"] for metric in counted if metric.get("event")}
        for text in sorted(own):
            self._known[text] = "".join(self._rng.choices(string.ascii_letters, k=14))
            if text.startswith(ITS_OWN):  # its last word may say that it is a result, such as `outcome`
                self._known[text] += f".{text.rpartition('.')[2]}"

    def of(self, thing):
        """Give the same with all names replaced, and the values of what the shop made up."""
        if isinstance(thing, str):
            return self._known.get(thing, thing)
        if isinstance(thing, tuple) and len(thing) == 2:  # an attribute of a verdict
            return (self.of(thing[0]), self._value(*thing))
        if isinstance(thing, (list, tuple)):
            return type(thing)(self.of(each) for each in thing)
        if isinstance(thing, dict) and {"key", "value"} <= thing.keys():
            changed = {name: self.of(value) for name, value in thing.items()}
            return changed | {"value": self._value(thing["key"], thing["value"])}
        if isinstance(thing, dict):
            return {name: self.of(value) for name, value in thing.items()}
        return thing

    def _value(self, key, value):
        """Give another value; a status keeps its own, as HTTP says what it means."""
        if not str(key).startswith(VALUES) or re.fullmatch("[1-5][0-9]{2}", str(value)):
            return self.of(value)
        if str(value) not in self._values:
            self._values[str(value)] = "".join(self._rng.choices(string.ascii_letters, k=12))
        return self._values[str(value)]

    def recording(self, kept):
        """Give a recording in which all is called otherwise."""
        answers = {
            json.dumps(self.of(json.loads(question)), sort_keys=True): self.of(answer)
            for question, answer in kept.answers.items()
        }
        traces = {name: self.of(trace) for name, trace in kept.traces.items()}
        return recording.Recording(kept.at, kept.since, answers=answers, traces=traces)


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_what_was_wrong_is_named(folder):
    kept, truth = run_of(folder)
    grades = grade(diagnose(kept.evidence()).plain(), truth)
    wanted = {name: right for name, right in grades.items() if name.endswith("@1") and right is not None}
    assert all(wanted.values()), wanted
    assert not grades["false_alarm"]


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_with_all_names_changed_the_verdict_is_the_same(folder):
    kept, _ = run_of(folder)
    names = Names(kept, seed=7)
    renamed = names.recording(kept)
    expected = verdict(kept)
    assert (expected[0], names.of(expected[1])) == verdict(renamed)


def test_changing_the_names_leaves_nothing_that_is_the_shops_own():
    kept, truth = run_of(FOLDER / "payment-declines")
    names = Names(kept, seed=7)
    renamed = names.recording(kept)
    before, after = (json.dumps([one.answers, one.traces]) for one in (kept, renamed))
    own = [f'"{name}"' for name in (truth["service"], truth["operation"], *truth["attribute"].values())] + ['"shop.']
    assert [name for name in own if name in before] == own
    assert [name for name in own if name in after] == []


def test_there_are_recordings_of_a_fault_and_of_health_and_they_are_small():
    services = [run_of(folder)[1]["service"] for folder in RUNS]
    assert None in services
    assert len(set(services)) > 3
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 400_000
