"""`python -m scenarios grade`: rates a tool's answers against the known truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from observability.why.grade import TOPS, grade, summary
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

SCHEMA = Path(__file__).with_name("answer.schema.json")
_EXAMPLE = (
    '{"causes": [{"service": "payment-service", "operation": "decide charge",'
    ' "attributes": [{"key": "shop.product.id", "value": "25"}]}]}'
)
_TRUTH = "truth.json"
_COLUMNS = tuple(f"{what}@{top}" for what in ("service", "operation", "attribute") for top in TOPS)
_LARGEST = 16 * 2**20


class _Said(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Attribute(_Said):
    """An attribute that bad requests have in common."""

    key: str = Field(min_length=1, description="The name of an attribute of a span or of a resource.")
    value: str | int | float | bool = ""


class Cause(_Said):
    """One cause."""

    service: str = Field(min_length=1, description="As in `service.name`.")
    operation: str | None = Field(None, description="The name of a span of this service.")
    attributes: list[Attribute] = Field([], description="The clearest first.")


class Answer(_Said):
    """A tool's answer."""

    causes: list[Cause] = Field(description="The likeliest first; none, if nothing is wrong.")
    state: str = Field("", description="`well` or `over`: nothing is wrong, whatever is named.")


def schema() -> str:
    """Return the JSON Schema of an answer."""
    return json.dumps(Answer.model_json_schema(), indent=2) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(act=run)
    parser.add_argument(
        "answers",
        nargs="+",
        type=Path,
        metavar="ANSWER",
        help=f"an answer, RUN.json or RUN/answer.json, or a folder of such; like {_EXAMPLE}",
    )
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="FOLDER", help="a data set of `make dataset`, or one run of it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Grade the answers, and print the grades.

    Returns:
        The exit status: 0, or 1 if an answer is missing or invalid, which counts as a wrong one.
    """
    truths = _truths(arguments.truth)
    answers, problems = _answers(arguments.answers, truths)
    left_out = [name for name in truths if name not in answers]
    problems |= {name: f"There is no answer for {name}: it counts as a wrong one." for name in left_out}
    grades = {name: _grade(answers.get(name), truths[name], problems.get(name)) for name in truths}
    if arguments.json:
        told = {
            "runs": [
                {"run": name, "scenario": truths[name].get("scenario"), "problem": problems.get(name), **found}
                for name, found in grades.items()
            ],
            "total": summary(grades.values()),
            "not_answered": left_out,
        }
        print(json.dumps(told, indent=2))
    else:
        _print(truths, grades, problems)
        if left_out:
            print(f"Not answered, and counted as wrong: {', '.join(left_out)}.")
    for problem in problems.values():
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _grade(answer: Mapping[str, Any] | None, truth: Mapping[str, Any], problem: str | None) -> dict[str, bool | None]:
    """Grade an answer. A missing answer is wrong even if nothing is wrong; otherwise silence would be rewarded."""
    grades = grade(answer or {}, truth)
    if problem and grades["false_alarm"] is not None:
        grades["false_alarm"] = True
    return grades


def read(path: Path) -> dict[str, Any]:
    """Read an answer.

    Raises:
        ScenarioError: It is invalid; the message says where, and what a valid one looks like.
    """
    try:
        text = path.read_bytes()[: _LARGEST + 1]
        if len(text) > _LARGEST:
            raise ScenarioError(f"{path} is larger than {_LARGEST >> 20} MiB: it cannot be an answer.")
        answer: dict[str, Any] = Answer.model_validate_json(text).model_dump()
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()[:3]]
        raise ScenarioError(
            f"{path} is no answer ({'; '.join(found)}). One looks like {_EXAMPLE}; its JSON Schema is {SCHEMA}."
        ) from error
    return answer


def _truths(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the truth of a run, or of all runs of a data set."""
    paths = [folder / _TRUTH] if (folder / _TRUTH).exists() else sorted(folder.glob(f"*/{_TRUTH}"))
    if not paths:
        raise ScenarioError(f"There is no {_TRUTH} in {folder}, nor in its folders: `make dataset` writes some.")
    truths: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            truth = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ScenarioError(f"{path} cannot be read: {error}.") from error
        if not isinstance(truth, dict):
            raise ScenarioError(f"{path} is no truth: `make dataset` writes an object.")
        truths[path.resolve().parent.name] = truth
    return truths


def _answers(given: Sequence[Path], truths: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Read the answers, by the names of their runs; return also what is wrong with invalid ones."""
    answers: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for path in _files(given):
        name = next((one for one in (path.stem, path.resolve().parent.name) if one in truths), "")
        if not name and len(truths) == 1 and len(given) == 1 and given[0] == path and not path.stem.startswith("run-"):
            [name] = truths
        if not name:
            raise ScenarioError(
                f"Which run is {path} about? Call it by its run: {next(iter(truths))}.json, for example."
            )
        if name in answers:
            raise ScenarioError(f"There are two answers for {name}; {path} is the second.")
        try:
            answers[name] = read(path)
        except ScenarioError as error:
            answers[name], problems[name] = {}, f"{error} It counts as a wrong one."
    return answers, problems


def _files(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = [one for one in (*path.glob("*.json"), *path.glob("*/answer.json")) if one.name != _TRUTH]
            if not inside:
                raise ScenarioError(f"There is no answer in {path}: neither RUN.json nor RUN/answer.json.")
            found += sorted(inside)
        else:
            found.append(path)
    return found


def _print(
    truths: Mapping[str, Mapping[str, Any]],
    grades: Mapping[str, Mapping[str, bool | None]],
    problems: Mapping[str, str],
) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "scenario", *_COLUMNS):
        table.add_column(column, no_wrap=True)
    for name, found in grades.items():
        scenario = str(truths[name].get("scenario") or "health")
        table.add_row(name, scenario, *(_WORDS[found.get(column)] for column in _COLUMNS))
    total = summary(grades.values())
    shares = (total.get(column) for column in _COLUMNS)
    table.add_section()
    table.add_row("all", str(len(grades)), *("" if share is None else f"{share:.0%}" for share in shares))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    health = {name: found["false_alarm"] for name, found in grades.items() if found["false_alarm"] is not None}
    if health:
        silent = sum(name in problems for name in health)
        told = f" Without a usable answer in health: {silent}." if silent else ""
        print(f"Causes named in health: {sum(map(bool, health.values())) - silent}.{told}")


_WORDS = {True: "yes", False: "no", None: ""}
