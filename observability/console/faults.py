"""The faults that can be switched on to practise with, as `make fault` switches them."""

from __future__ import annotations

import os
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Blueprint, abort, current_app, redirect, request, url_for

from observability.console import pages
from scenarios import describing, flags

if TYPE_CHECKING:
    from pathlib import Path

    from flask.typing import ResponseReturnValue

    from scenarios.describing import Scenario

routes = Blueprint("faults", __name__)


@routes.get("/faults")
def faults() -> str:
    """List them, each with what it is and what practises it."""
    known, errors, file = [], [], _file()
    if file is not None:
        try:
            known = flags.read(file)
        except flags.FlagError as error:
            errors.append(str(error))
    by_flag: dict[str, list[Scenario]] = {}
    for scenario in scenarios():
        by_flag.setdefault(getattr(scenario.switch, "fault", None) or "", []).append(scenario)
    may = file is not None and os.access(file.parent, os.W_OK)
    return pages.page("faults.html", errors, file=file, known=known, by_flag=by_flag, off=flags.OFF, may=may)


@routes.post("/faults")
def switch() -> ResponseReturnValue:
    """Switch one, or all off."""
    file, name, state = _file(), request.form.get("name", ""), request.form.get("state", "")
    if file is None:
        abort(HTTPStatus.NOT_FOUND, "The console knows no file of flags.")
    pages.apis().orders.check(pages.token(), off="all" in request.form or state == flags.OFF)
    try:
        wanted = {flag.name: flags.OFF for flag in flags.read(file)} if "all" in request.form else {name: state}
        flags.change(file, wanted)
    except flags.FlagError as error:
        abort(HTTPStatus.BAD_REQUEST, str(error))
    return redirect(url_for("faults.faults"), HTTPStatus.SEE_OTHER)


def on() -> list[str]:
    """Name those that are on, for the top of each page; none where that cannot be said."""
    file = _file()
    try:
        known = flags.read(file) if file is not None else []
    except flags.FlagError:
        return []
    return [flag.name for flag in known if flag.state != flags.OFF]


@cache
def scenarios() -> list[Scenario]:
    """Read all scenarios, once: they come with the code."""
    return [describing.read(name) for name in describing.names()]


def _file() -> Path | None:
    found: Path | None = current_app.extensions["flags_file"]
    return found
