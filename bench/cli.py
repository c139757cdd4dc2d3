"""The command line, `python -m bench`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from bench import budget, capacity, cluster, document, machine, measure, report, switches
from bench.errors import BenchError
from bench.rows import HEADLINE, ROWS, STATEMENTS, STATEMENTS_TEXT, Row, parse, with_replicas
from bench.stacks import BenchStack, alone, running, swept
from local import rundir
from local.errors import LocalError
from local.processes import hear_ctrl_c
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS = Path(os.environ.get("BENCH_RESULTS") or PROJECT / ".run" / "bench")
"""Where results are left, as JSON and Markdown."""

STACKS = RESULTS / ".bench-stacks"
"""Where the stacks that are measured live; deleted before and after."""

DESCRIPTION = """\
Measures the shop on stacks of its own, side by side, with ports and folders of their own: what
telemetry costs (overhead), two or more configurations or commits against each other (compare), how throughput and
latency grow with clients and with replicas, start times and memory against a budget (budget), and how much each order
stores, from which the needs of bigger shops are calculated (capacity). Results are written to .run/bench
(BENCH_RESULTS); `docs` writes docs/performance.md from the results in docs/performance."""

NOISY = "try the command on a machine that is not quiet; `docs` does not take the result"
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
REPLICAS = (1, 2, 3, 4)
ALL = ("budget", "overhead", "clients", "replicas", "capacity")
"""What `make bench` runs."""

_console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
_began = time.monotonic()


def main(argv: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit status."""
    arguments = _arguments(argv)
    hear_ctrl_c()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        if arguments.run is _docs:
            _docs(arguments)
        else:
            _prepare()
            with alone(RESULTS):
                arguments.run(arguments)
    except (BenchError, LocalError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], None], **defaults: Any) -> Any:
        chosen = commands.add_parser(name, help=text, description=text)
        seconds, rounds = defaults.get("seconds", 5), defaults.get("rounds", 5)
        help_seconds = "seconds of one turn (default %(default)s)"
        chosen.add_argument("--seconds", type=float, default=seconds, help=help_seconds)
        if rounds:
            help_rounds = "rounds, in each of which all have a turn (default %(default)s)"
            chosen.add_argument("--rounds", type=int, default=rounds, help=help_rounds)
        chosen.add_argument("--noisy", action="store_true", help=NOISY)
        chosen.add_argument("--name", default=name, help="name of the result's files (default %(default)s)")
        chosen.set_defaults(run=run)
        return chosen

    text = "what telemetry costs, compared with none and with zero-code instrumentation"
    overhead = command("overhead", text, _overhead)
    overhead.add_argument("--clients", type=int, default=8, help="clients at once (default %(default)s)")
    overhead.add_argument(
        "--rows",
        nargs="+",
        default=HEADLINE,
        choices=[*ROWS, STATEMENTS],
        metavar="ROW",
        help=f"configurations, of {', '.join([*ROWS, STATEMENTS])} (default {', '.join(HEADLINE)})",
    )
    overhead.add_argument("--project", default="", help="a copy of the project whose code is measured (this one)")
    overhead.set_defaults(title="", verdict="")

    compare = command("compare", "two or more configurations side by side; the first is the base", _compare, seconds=4)
    compare.add_argument("rows", nargs="+", metavar="ROW[@PROJECT][,VARIABLE=VALUE...]")
    compare.add_argument("--clients", type=int, default=8, help="clients at once (default %(default)s)")
    compare.add_argument("--title", default="", help="what the second one is, for the table of steps")
    compare.add_argument("--verdict", default="", help="the conclusion, for the table of steps")

    clients = command("clients", "throughput and latency by number of clients", _clients, rounds=3)
    clients.add_argument("--counts", type=int, nargs="+", default=CLIENTS, help="clients (default 1, 2, 4 ... 64)")
    clients.add_argument("--row", default="full", help="the configuration (default %(default)s)")

    replicas = command("replicas", "throughput by number of order-service replicas", _replicas, rounds=3)
    replicas.add_argument("--counts", type=int, nargs="+", default=REPLICAS, help="replicas (default 1 to 4)")
    replicas.add_argument("--clients", type=int, default=16, help="clients at once (default %(default)s)")
    replicas.add_argument("--row", default="full", help="the configuration (default %(default)s)")

    text = "start time and memory of each part, against bench/budget.yaml"
    chosen = command("budget", text, _budget, rounds=0)
    chosen.add_argument("--row", default="full", help="the configuration (default %(default)s)")

    text = "how much of an order's processor time the fault switches take while all are off"
    command("switches", text, _switches, seconds=3)

    text = "what 10, 1,000 and 100,000 orders a second need, calculated from the cost of one order"
    chosen = command("capacity", text, _capacity, seconds=10, rounds=0)
    chosen.add_argument("--project", default="", help="a copy of the project whose code is measured (this one)")

    _cluster_arguments(command)

    text = f"{', '.join(ALL)}, one after the other"
    chosen = commands.add_parser("all", help=text, description=text)
    chosen.add_argument("--seconds", type=float, help="seconds of one turn (default: each command's own)")
    chosen.add_argument("--rounds", type=int, help="rounds, where there are some (default: each command's own)")
    chosen.add_argument("--noisy", action="store_true", help=NOISY)
    chosen.set_defaults(run=_all)

    text = "save results in docs/performance, and write the tables of the docs"
    chosen = commands.add_parser("docs", help=text, description=text)
    chosen.add_argument("names", nargs="*", metavar="NAME", help="names of results to save")
    chosen.set_defaults(run=_docs)
    return parser.parse_args(argv)


def _cluster_arguments(command: Callable[..., Any]) -> None:
    text = "throughput by number of order-service pods, in the Kubernetes cluster of kubectl's current context"
    chosen = command("cluster", text, _cluster, seconds=48, rounds=3)
    chosen.add_argument("--counts", type=int, nargs="+", default=(1, 2, 3), help="pods (default 1 2 3)")
    chosen.add_argument("--users", type=int, default=32, help="users at the end of a ramp (default %(default)s)")
    chosen.add_argument("--workers", type=int, default=2, help="pods that make the load (default %(default)s)")
    chosen.add_argument("--remark", action="append", default=[], help="a note about the cluster, shown below the table")


def _overhead(arguments: argparse.Namespace) -> None:
    project = parse(f"off@{arguments.project}").project
    rows = [dataclasses.replace(ROWS[name], project=project) for name in arguments.rows if name != STATEMENTS]
    if not rows:
        raise BenchError(f"{STATEMENTS} needs the database of another row: name one before it.")
    _comparison(arguments, rows, with_statements=STATEMENTS in arguments.rows)


def _compare(arguments: argparse.Namespace) -> None:
    rows: dict[str, Row] = {}
    for row in map(parse, arguments.rows):
        name = row.name if row.name not in rows else f"{row.name} ({len(rows) + 1})"  # the same again shows the noise
        rows[name] = dataclasses.replace(row, name=name)
    _comparison(arguments, [*rows.values()], with_statements=False)


def _comparison(arguments: argparse.Namespace, rows: list[Row], *, with_statements: bool) -> None:
    """Measure configurations side by side; the first is the base."""
    result = {
        "kind": "comparison",
        "title": arguments.title,
        "verdict": arguments.verdict,
        "base": rows[0].name,
        "rows": {row.name: row.text for row in rows} | ({STATEMENTS: STATEMENTS_TEXT} if with_statements else {}),
        "commits": {row.name: machine.commit(row.project) for row in rows},
    }
    _interleave(
        arguments,
        rows,
        result,
        lambda stacks: measure.turns_of(stacks, arguments.clients, arguments.seconds, with_statements=with_statements),
    )


def _clients(arguments: argparse.Namespace) -> None:
    row = parse(arguments.row)
    names = {str(count): count for count in arguments.counts}
    title = f"Throughput by number of clients; configuration: {row.text}"
    _interleave(
        arguments,
        [row],
        {"kind": "growth", "what": "clients", "title": title, "rows": {name: name for name in names}},
        lambda stacks: {
            name: partial(measure.turn, stacks[row.name], count, arguments.seconds, name)
            for name, count in names.items()
        },
    )


def _replicas(arguments: argparse.Namespace) -> None:
    row = parse(arguments.row)
    rows = [with_replicas(row, count) for count in arguments.counts]
    title = f"Throughput by number of order-service replicas, {arguments.clients} clients; configuration: {row.text}"
    _interleave(
        arguments,
        rows,
        {"kind": "growth", "what": "replicas", "title": title, "rows": {row.name: str(row.replicas) for row in rows}},
        lambda stacks: measure.turns_of(stacks, arguments.clients, arguments.seconds),
    )


def _budget(arguments: argparse.Namespace) -> None:
    _say("starting, loading and starting again one whole stack; this takes about a minute")
    stack = BenchStack(parse(arguments.row), STACKS / "budget")
    result = {"kind": "budget"} | _begun(arguments)
    with swept(STACKS):
        try:
            result["parts"] = budget.measure(stack, arguments.seconds)
        finally:
            stack.reset()
    result["remarks"] = budget.exceeded(result["parts"]) or ["All is within the budget."]
    _publish(arguments.name, result)


def _capacity(arguments: argparse.Namespace) -> None:
    rows = capacity.rows(parse(f"full@{arguments.project}").project)
    _say(f"this takes about {len(rows)} minutes")
    begun = _begun(arguments)
    result, stores = {"kind": "capacity"} | begun, {"kind": "stores"} | begun
    with running(rows, STACKS, _say) as stacks:
        result["full"] = capacity.of_embedded(stacks["full"], arguments.seconds)
        if "backends" in stacks:
            stores["backends"] = capacity.of_backends(stacks["backends"], arguments.seconds, _say)
    if not arguments.noisy:
        found = (result["full"], stores.get("backends"))
        machine.refuse_noise(max(measured["others_busy"] for measured in found if measured))
    _publish(arguments.name, result | {"remarks": []})
    if "backends" in stores:
        _publish("stores", stores | {"remarks": []})
    else:
        _say("not the stores of Compose: set BACKEND_BINARIES to a folder with otelcol, jaeger and loki")


def _cluster(arguments: argparse.Namespace) -> None:
    """Measure in a cluster. How busy others are on its nodes is not known: the spread of the rounds shows it."""
    result: dict[str, Any] = {
        "kind": "cluster",
        "rows": [str(count) for count in arguments.counts],
        "command": machine.command_line().partition(" --remark")[0],
        "when": datetime.now(UTC).date().isoformat(),
        "machine": cluster.describe(),
        "workers": arguments.workers,
        "noisy": arguments.noisy,
        "turns": [],
        "remarks": arguments.remark,
    }
    seconds = len(arguments.counts) * arguments.rounds * (arguments.seconds + 25)
    _say(f"this takes about {seconds / 60:.0f} minutes; Ctrl-C stops and cleans up")
    with cluster.loaded(arguments.workers, arguments.users, arguments.seconds):
        cluster.turns(arguments.counts, arguments.rounds, _say, result["turns"])
    _publish(arguments.name, result)


def _all(arguments: argparse.Namespace) -> None:
    """Run all, one after the other, with their defaults or what the arguments say."""
    runs = [_arguments([name]) for name in ALL]
    for chosen in runs:
        chosen.noisy = arguments.noisy
        if arguments.seconds is not None:
            chosen.seconds = arguments.seconds
        if arguments.rounds is not None and "rounds" in chosen:
            chosen.rounds = arguments.rounds
    seconds = sum(map(_expected, runs))
    _say(f"all measurements take about {seconds / 60:.0f} minutes; Ctrl-C stops and cleans up")
    for chosen in runs:
        chosen.run(chosen)


def _expected(arguments: argparse.Namespace) -> float:
    """Estimate how long a command of `ALL` takes."""
    stacks = turns = len(getattr(arguments, "counts", getattr(arguments, "rows", ())))
    if arguments.name == "clients":
        stacks = 1
    elif arguments.name in {"budget", "capacity"}:
        stacks = 6  # starts and stops, mostly
    return measure.expected_seconds(stacks, turns, getattr(arguments, "rounds", 0), arguments.seconds)


def _switches(arguments: argparse.Namespace) -> None:
    """Measure processor time, which may be done beside other programs: both have their turns, round by round."""
    result = {
        "kind": "switches",
        "command": machine.command_line(),
        "when": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(),
        "noisy": arguments.noisy,
        "asked": switches.asked(),
    }
    with running([ROWS["default"]], STACKS, _say) as stacks:
        result["turns"] = list(switches.turns(stacks["default"], arguments.rounds, arguments.seconds, _say))
    _publish(arguments.name, result)


def _docs(arguments: argparse.Namespace) -> None:
    """Keep results in the project, and write its pages from all that are kept."""
    document.keep(RESULTS, arguments.names)
    for page in document.PAGES:
        page.write_text(document.filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def _interleave(
    arguments: argparse.Namespace,
    rows: Sequence[Row],
    result: dict[str, Any],
    turns_of: Callable[[dict[str, BenchStack]], dict[str, Callable[[], dict[str, Any]]]],
) -> None:
    """Have the stacks up, take turns, publish; what was measured before a Ctrl-C too."""
    seconds = measure.expected_seconds(len(rows), len(result["rows"]), arguments.rounds, arguments.seconds)
    _say(f"{len(rows)} stacks; this takes about {seconds / 60:.1f} minutes. Ctrl-C stops and cleans up.")
    result |= _begun(arguments) | {"turns": []}
    try:
        with running(rows, STACKS, _say) as stacks:
            result["idle_cores"] = measure.idle([*stacks.values()])
            measure.interleaved(turns_of(stacks), arguments.rounds, _say, result["turns"], noisy=arguments.noisy)
    except (KeyboardInterrupt, SystemExit):
        if result["turns"]:
            _publish(arguments.name, result)
        raise
    _publish(arguments.name, result)


def _prepare() -> None:
    if RESULTS.parent == PROJECT / ".run" and not rundir.is_ours(RESULTS.parent):
        rundir.prepare(RESULTS.parent)  # or `make up` would take it for somebody else's folder


def _begun(arguments: argparse.Namespace) -> dict[str, Any]:
    described = machine.describe()
    if not arguments.noisy:
        machine.refuse_noise(described["busy_before"])
    return {
        "command": machine.command_line(),
        "when": datetime.now(UTC).date().isoformat(),
        "machine": described,
        "noisy": arguments.noisy,
    }


def _publish(name: str, result: dict[str, Any]) -> None:
    """Print the tables and write the files."""
    for table in report.tables(result):
        table.show(_console)
    for line in report.remarks(result):
        _console.print(line, soft_wrap=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(report.markdown(result), encoding="utf-8")
    _console.print(f"\nWritten to {os.path.relpath(RESULTS / name)}.json and .md")


def _say(text: str) -> None:
    print(f"{time.monotonic() - _began:6.0f} s  {text}", file=sys.stderr, flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
