"""The command line: `python -m local up|down|reset|status|logs|psql|rotate-keys|health|render-gateway`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from local import runner
from local.errors import LocalError
from local.runner import Interrupted
from local.settings import Settings
from local.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.runner import Build

_MINIMUM = (3, 11)
_ON_FOLDER = {"down": runner.down, "reset": runner.reset, "status": runner.status}


def main(argv: Sequence[str], build: Build) -> int:
    """Do what the arguments say.

    Args:
        argv: The arguments, without the program's name.
        build: Makes the stack of given settings.

    Returns:
        The exit status; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        if sys.version_info < _MINIMUM:
            raise LocalError(
                f"Python {_MINIMUM[0]}.{_MINIMUM[1]} or newer is needed, this is {sys.version.split()[0]}: "
                "delete .venv and choose another with PYTHON=python3.12 make up."
            )
        return _run(arguments, build)
    except LocalError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        return 128 + error.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `make logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace, build: Build) -> int:
    if sys.platform != "linux" or not shutil.which("setpriv"):
        raise LocalError("Local mode needs Linux with util-linux (`setpriv`): use Docker Compose on this machine.")
    run_dir = Settings.read(runner.without_ports(os.environ)).run_dir
    command = arguments.command
    if command == "up":
        return runner.up(os.environ, build)
    if command in _ON_FOLDER:
        return _ON_FOLDER[command](run_dir, os.environ, build)
    if command == "logs":
        return runner.logs(run_dir, arguments.service, lines=arguments.lines, follow=arguments.follow)
    # Only these need what the real stack is made of.
    from local import tools  # noqa: PLC0415

    if command == "render-gateway":
        return tools.render_gateway(arguments.folder)
    if not Supervisor.find(run_dir):
        raise LocalError("Nothing is running: `make up` first.")
    return tools.ON_STACK[command](Settings.of_running(run_dir, os.environ))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    add("up", "start everything and return when it is ready; it stays up in the background")
    add("down", "stop everything")
    add("reset", "stop everything and delete all data")
    add("status", "show each part; exit status 0: all ready, 1: some not, 3: nothing runs")
    logs = add("logs", "show the logs of all parts or of one")
    logs.add_argument("service", nargs="?", help="a part's name, for example order-service")
    logs.add_argument("--lines", type=int, default=20, help="how many last lines of each (20)")
    logs.add_argument("--no-follow", dest="follow", action="store_false", help="do not wait for more")
    add("psql", "open the order database as its owner")
    add("rotate-keys", "make a new signing key; tokens signed by the last one stay valid")
    add("health", "run tests/health against the running stack")
    render = add("render-gateway", "write the gateway's configuration to a folder, to look at it or check it")
    render.add_argument("folder", type=Path)
    return parser
