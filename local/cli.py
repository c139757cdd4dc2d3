"""The command line: `python -m local up|down|reset|status|logs|psql|rotate-keys|health|render-gateway`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from local import runner, tools
from local.errors import LocalError
from local.processes import hear_ctrl_c
from local.settings import run_dir
from local.status import status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from local.parts import Build

_HELP = {
    "up": "start everything and return when it is ready; it stays up in the background",
    "down": "stop everything",
    "reset": "stop everything and delete all data",
    "status": "show each part; exit status 0: all ready, 1: some not, 3: nothing runs",
    "logs": "follow the logs of all parts or of one",
    "psql": "open the order database as its owner",
    "rotate-keys": "make a new signing key; tokens signed by the last one stay valid unless it is revoked",
    "health": "run tests/health against the running stack",
    "render-gateway": "write the gateway's configuration to a folder, to look at it or check it",
}


def main(argv: Sequence[str], build: Build) -> int:
    """Do what the arguments say.

    Args:
        argv: The arguments, without the program's name.
        build: Makes the stack of given settings.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, help=text, description=text) for name, text in _HELP.items()}
    parsers["logs"].add_argument("service", nargs="?", help="a part's name, for example order-service")
    parsers["logs"].add_argument("--no-follow", dest="follow", action="store_false", help="only the last lines")
    parsers["rotate-keys"].add_argument(
        "--revoke",
        action="store_true",
        help="withdraw all other keys at once, and with them all tokens: when one leaked",
    )
    parsers["render-gateway"].add_argument("folder", type=Path)
    hear_ctrl_c()
    try:
        return _run(parser.parse_args(argv), build)
    except (LocalError, OSError) as error:  # the system's own sentences name the file
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, build: Build) -> int:
    if sys.platform != "linux" or not shutil.which("setpriv"):
        raise LocalError("Local mode needs Linux with util-linux (`setpriv`): use Docker Compose on this machine.")
    folder = run_dir(os.environ)
    actions: dict[str, Callable[[], int]] = {
        "up": lambda: runner.up(os.environ, build),
        "down": lambda: runner.down(folder),
        "reset": lambda: runner.reset(folder),
        "status": lambda: status(folder, build),
        "logs": lambda: tools.logs(folder, arguments.service, follow=arguments.follow),
        "psql": lambda: tools.psql(folder),
        "rotate-keys": lambda: tools.rotate_keys(folder, revoke=arguments.revoke),
        "health": lambda: tools.health(folder),
        "render-gateway": lambda: tools.render_gateway(arguments.folder),
    }
    return actions[arguments.command]()
