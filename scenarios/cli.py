"""The command line: `python -m scenarios fault|list|run|dataset|grade`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

from local.errors import LocalError
from local.processes import hear_ctrl_c
from scenarios import accuracy, describing, finding, flags, grading, telling
from scenarios.dataset import command as dataset
from scenarios.errors import ScenarioError
from scenarios.running import in_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scenarios.outcome import Outcome


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The exit status: 0; 1 if a scenario failed or something is wrong; 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fault = commands.add_parser(
        "fault", help="list the faults, or switch some: payment-slow=on, payment-slow=off, all=off"
    )
    fault.add_argument("switches", nargs="*", metavar="NAME=STATE", help="STATE is on, off, or a variant")
    fault.add_argument("--json", action="store_true", help="list them for programs")
    commands.add_parser("list", help="list the scenarios")
    run = commands.add_parser("run", help="run scenarios")
    run.add_argument("names", nargs="*", metavar="NAME", help="which")
    run.add_argument("--all", action="store_true", help="all of them, and a table")
    run.add_argument("--seed", type=int, default=1, help="makes the customers' choices the same again")
    run.add_argument("--json", metavar="FILE", help="write the results to a file")
    run.add_argument("--markdown", metavar="FILE", help="write the table to a file")
    dataset.add_arguments(commands.add_parser("dataset", help="record runs as data: telemetry, and what was wrong"))
    grading.add_arguments(commands.add_parser("grade", help="compare a tool's answers with what was wrong"))
    accuracy.add_arguments(commands.add_parser("accuracy", help="measure how good `make why` is"))
    hear_ctrl_c()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "fault":
            return _fault(arguments.switches, as_json=arguments.json)
        if arguments.command == "list":
            return _list()
        if arguments.command in {"dataset", "grade", "accuracy"}:
            return int(arguments.act(arguments))
        return _run(arguments)
    except (LocalError, flags.FlagError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the fault is off." if arguments.command == "run" else "", file=sys.stderr)
        return 130


def _end(number: int, _frame: object) -> NoReturn:
    """End as by Ctrl-C, so that frozen parts go on and faults are switched off."""
    raise SystemExit(128 + number)


def _fault(switches: Sequence[str], *, as_json: bool) -> int:
    file = finding.find().flags
    wanted = _wanted(switches, [flag.name for flag in flags.read(file)])
    if wanted:
        flags.change(file, wanted)
    known = flags.read(file)
    on = [flag for flag in known if flag.state != flags.OFF]
    if as_json:
        print(json.dumps([asdict(flag) for flag in known]))
    elif wanted:
        print(f"On: {', '.join(f'{flag.name} ({flag.state})' for flag in on) or 'nothing'}. It counts within a second.")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("fault", "is", "can be", "kind", "what it does"):
            table.add_column(column, overflow="fold", no_wrap=column == "fault")
        for flag in known:
            variants = [f"{one} ({flag.amounts[one]:,})" if one in flag.amounts else one for one in flag.variants]
            table.add_row(flag.name, flag.state, ", ".join(variants), flag.kind, flag.description)
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _wanted(switches: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Parse NAME=STATE, also in what make passes on: `NAME=payment-slow=on`, and variables of make's own.

    Raises:
        ScenarioError: An argument is invalid; the message says what to type.
    """
    wanted: dict[str, str] = {}
    pairs = [switch.removeprefix("NAME=").partition("=") for switch in switches]
    if bare := [name for name, equals, _ in pairs if name and not equals]:
        raise ScenarioError(_how_to_say(bare, known))
    for name, _, state in pairs:
        if name.isupper() and flags.spelt(name) not in known:
            continue
        if name == "all" and state != flags.OFF:
            raise ScenarioError("All faults at once teach nothing: it can be all=off.")
        meant = dict.fromkeys(known, state) if name == "all" else {name: state}
        if twice := [each for each, other in wanted.items() if meant.get(each, other) != other]:
            raise ScenarioError(f"{twice[0]} cannot be {wanted[twice[0]]} and {meant[twice[0]]} at once: say one.")
        wanted |= meant
    return wanted


def _how_to_say(bare: Sequence[str], known: Sequence[str]) -> str:
    """Return a hint for arguments that name faults, and perhaps states, without an equals sign."""
    states = [each for each in bare if each not in known and each in {"on", flags.OFF}]
    named = [each for each in bare if each not in states]
    for name in named:
        if name != "all" and name not in known:
            return f"There is no fault {name}{flags.near(name, known)}. `make fault` lists them."
    state = states[0] if states else flags.OFF if "all" in named else "on"
    said = " ".join(f"{name}={state}" for name in named or ["payment-slow"])
    subject = f"{' and '.join(named) or 'a fault'} {'are' if len(named) > 1 else 'is'}"
    return f"Say what {subject} to be: `make fault {said}`."


def _list() -> int:
    for name in describing.names():
        scenario = describing.read(name)
        print(f"{name:<22} {scenario.kind:<11} {scenario.teaches}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    names = describing.names() if arguments.all else arguments.names
    if not names:
        raise ScenarioError("Which one? `make scenario NAME=payment-slow`; `python -m scenarios list` lists them.")
    scenarios = [describing.read(name) for name in names]
    for file in filter(None, (arguments.json, arguments.markdown)):
        Path(file).open("a", encoding="utf-8").close()  # to find an unwritable file now, not after all runs
    outcomes: list[Outcome] = []
    with finding.alone(" ".join(["make scenarios" if arguments.all else "make scenario", *arguments.names])) as where:
        try:
            for outcome in in_turn(scenarios, where, lambda line: print(line, flush=True), arguments.seed):
                outcomes.append(outcome)
                print(telling.verdict(outcome), flush=True)
        finally:
            if arguments.json:
                telling.write_json(arguments.json, outcomes)
            if arguments.markdown:
                telling.write_markdown(arguments.markdown, outcomes)
    if len(names) > 1:
        print(telling.table(outcomes))
    return 0 if all(outcome.ok for outcome in outcomes) else 1
