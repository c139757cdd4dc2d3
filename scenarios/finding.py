"""Finds the shop that runs here: the local stack, or the one in Docker Compose."""

from __future__ import annotations

import contextlib
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from dotenv import dotenv_values

from local import rundir
from local.settings import PROJECT, Settings, run_dir
from local.supervision import Supervisor
from scenarios import flags, undo
from scenarios.errors import ScenarioError
from scenarios.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SECONDS = 3


def find(environ: Mapping[str, str] = os.environ) -> Place:
    """Find the shop that runs here. Faults that a killed run has left on are undone first, and reported.

    Raises:
        ScenarioError: No shop runs here, or something cannot be undone.
    """
    found = _found(environ)
    for what in undo.replay(found):
        print(f"A run was killed and left {what}: this is undone now.", file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def alone(what: str) -> Iterator[Place]:
    """Find the shop for a run that must be the only one: while the block lasts, no other run can begin.

    Args:
        what: The command, which others that are refused get to read.

    Raises:
        ScenarioError: Another run is active, or a fault is on; the message says how to end it. If two start at
            the same moment, both may be refused.
    """
    place = find()
    with undo.afterwards(place, what, []):  # before looking for others: of two at once, neither may miss the other
        _refuse_company(place)
        yield place


def _refuse_company(place: Place) -> None:
    if others := [each for each in undo.alive(place) if each.pid != os.getpid()]:
        does = ", ".join(f"{each.what} (process {each.pid})" for each in others)
        raise ScenarioError(f"Another run is at work here: {does}. Wait until it ends, or end it by Ctrl-C.")
    if on := [flag for flag in flags.read(place.flags) if flag.state != flags.OFF]:
        said = ", ".join(f"{flag.name} ({flag.state})" for flag in on)
        off = " ".join(f"{flag.name}=off" for flag in on)
        raise ScenarioError(
            f"Switched on already: {said}. Then it would not be clear what shows which fault."
            f" Switch it off with `make fault {off}`, and run this again."
        )


def _found(environ: Mapping[str, str]) -> Place:
    """Find a local stack by the settings it was started with, or one in Docker Compose by the settings of Compose."""
    folder = run_dir(environ)
    if Supervisor.find(folder):
        stack = Settings.of_running(folder)
        return Place(rundir.flags_file(folder), *_roots(stack.environment()), stack)
    settings = {**_of_file(), **environ}
    roots = _roots(settings)
    if not _answers(roots[0]):
        raise ScenarioError(
            f"No shop runs here: {roots[0]} does not answer. Start it with `make up`, or with `docker compose up -d`"
            " (and GATEWAY_PORT, if not 80, in the shell or in .env)."
        )
    composed = PROJECT / Path(settings.get("FLAGS_DIR") or flags.DEFAULT.parent).expanduser()
    return Place(composed / flags.DEFAULT.name, *roots, None)


def _of_file() -> dict[str, str]:
    """Read the file from which Docker Compose takes variables that are not set in the shell."""
    return {name: value for name, value in dotenv_values(PROJECT / ".env").items() if value is not None}


def _roots(ports: Mapping[str, str]) -> tuple[str, str, str, str]:
    defaults = {"GATEWAY_PORT": "80", "JAEGER_PORT": "16686", "LOKI_PORT": "3100", "PROMETHEUS_PORT": "9090"}
    gateway, jaeger, loki, prometheus = (
        f"http://127.0.0.1:{(ports.get(name) or default).rpartition(':')[2]}"  # a setting may contain an address
        for name, default in defaults.items()
    )
    return gateway, jaeger, loki, prometheus


def _answers(root: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(f"{root}/healthz", timeout=_SECONDS).status_code == HTTPStatus.OK
        except requests.RequestException:
            return False
