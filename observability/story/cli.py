"""The command line of a story."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from local.errors import LocalError
from local.processes import hear_ctrl_c
from observability.story import orders, show, telling
from observability.story.spans import MAX_ORDER
from observability.story.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PIPE_COLUMNS = 200
_TRACE = re.compile(r"(?:00-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?")
_LONGEST_WAIT = 60.0


def main(argv: Sequence[str]) -> int:
    """Tell the story that the arguments ask for.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The exit status: 0 when it was told, 1 when something could not be asked or is not there; argparse ends with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m observability.story",
        description="Shows one order, or one trace: its database row, its spans as a tree with times, its log lines.",
        epilog="JAEGER_URL and LOKI_URL choose other backends than those of the running shop.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--order", type=_order, metavar="ID", help="the order's id")
    which.add_argument(
        "--trace", type=_trace, metavar="ID", help="a trace id, or a traceparent or traceresponse header"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--compose", action="store_true", help="ask the shop in Docker Compose, not the local one")
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="wait for telemetry on its way (default: 2)",
    )
    arguments = parser.parse_args(argv)
    return ended(lambda: _tell(arguments))


def ended(tell: Callable[[], int]) -> int:
    """Do what a command does; give its exit status, also where it fails, is ended by Ctrl-C, or nobody reads on."""
    hear_ctrl_c()
    try:
        return tell()
    except LocalError as error:
        print(clean(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of the program flushes, and fails
        return 0


def _tell(arguments: argparse.Namespace) -> int:
    shop = orders.find(os.environ, compose=arguments.compose)
    if arguments.order is not None:
        story = telling.of_order(shop, arguments.order, arguments.wait)
    else:
        story = telling.of_trace(shop, arguments.trace, arguments.wait)
    if arguments.json:
        told = show.for_programs(story)
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
        told = show.for_people(story, console)
    sys.stdout.write(told)
    sys.stdout.flush()
    for error in story.errors:
        print(clean(error), file=sys.stderr)
    return 1 if story.errors else 0


def _order(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_ORDER:
        raise argparse.ArgumentTypeError(f"an order has a whole number, such as 7, not {text!r}")
    return int(text)


def _trace(text: str) -> str:
    found = _TRACE.fullmatch(text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"a trace id has 32 hexadecimal digits, not {text!r}")
    return found[1]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"wait between 0 and {_LONGEST_WAIT:.0f} seconds, not {text!r}")
    return seconds
