"""The command line of `make why`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from observability.story import orders
from observability.story.apis import Jaeger, Loki, Prometheus
from observability.story.cli import ended
from observability.story.text import plain
from observability.why import show
from observability.why.gather import PATIENCE_EACH, Backends
from observability.why.look import look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from observability.why.answer import Answer

_PIPE_COLUMNS = 160
_DURATION = re.compile(r"(\d{1,6})(s|m|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


def main(argv: Sequence[str], spent: float = 0.0) -> int:
    """Say what is wrong.

    Args:
        argv: The arguments, without the program's name.
        spent: Seconds that have passed since the user started the command.

    Returns:
        The exit status: 0 if the analysis ran, whatever it found; 1 if it could not run. argparse exits with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m observability.why",
        description="Says what is wrong with the shop, where, how sure that is, and why, from its telemetry alone.",
        epilog="JAEGER_URL, LOKI_URL and PROMETHEUS_URL choose other backends than those of the running shop.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--compose", action="store_true", help="ask the shop in Docker Compose, not the local one")
    parser.add_argument(
        "--since",
        type=_duration,
        metavar="DURATION",
        help="how long ago it may have begun, such as 90s or 10m; the time before that counts as good"
        " (default: 2 minutes, or since the first alert)",
    )
    parser.add_argument(
        "--at", type=_moment, metavar="TIME", help="ask about a moment in the past: 2026-11-29T09:30:00Z, or Unix time"
    )
    arguments = parser.parse_args(argv)

    def tell() -> int:
        began = time.monotonic() - spent
        apis = _backends(os.environ, compose=arguments.compose)
        answer = look_at(apis, arguments.at, arguments.since, _progress(), spent=time.monotonic() - began)
        _print(answer, as_json=arguments.json)
        return 0

    return ended(tell)


def _backends(environ: Mapping[str, str], *, compose: bool) -> Backends:
    shop = orders.find(environ, compose=compose)
    return Backends(
        Jaeger(shop.jaeger, seconds=PATIENCE_EACH),
        Loki(shop.loki, seconds=PATIENCE_EACH),
        Prometheus(shop.prometheus, PATIENCE_EACH),
    )


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        told = json.dumps(plain(answer.plain()), indent=2, allow_nan=False) + "\n"
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
        told = show.for_people(answer, console)
    sys.stdout.write(told)
    sys.stdout.flush()


def _progress() -> Callable[[str], None]:
    """Return a function that shows the current step on a terminal, in one line that it overwrites."""
    if not sys.stderr.isatty():
        return lambda _: None

    def said(what: str) -> None:
        sys.stderr.write(f"\r\x1b[K{what} ..." if what != "reasoning" else "\r\x1b[K")
        sys.stderr.flush()

    return said


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 10 <= seconds <= 3600:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"between 10s and 1h, such as 90s or 10m, not {text!r}")
    return float(seconds)


def _moment(text: str) -> float:
    try:
        when = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            when = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            when = -1.0
    if not 0 <= when <= time.time() + 60:
        raise argparse.ArgumentTypeError(f"a moment that has passed, such as 2026-11-29T09:30:00Z, not {text!r}")
    return when
