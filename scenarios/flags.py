"""Reads and changes the file of feature flags that the services use."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local import rundir
from local.rundir import FLAGS
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT = FLAGS
"""The file with all faults switched off. In Docker Compose, the services read this file itself."""

OFF = "off"


class FlagError(ScenarioError):
    """There is no such flag or variant, or the file is invalid. The message says what to do."""


@dataclass(frozen=True)
class Flag:
    """A fault that can be switched.

    Attributes:
        name: Its name.
        state: `off`, or the variant that is on.
        variants: The variants except `off`; the default first.
        kind: The kind of fault.
        description: What it does.
        amounts: The strength of each variant that is a number; the description says what it means.
    """

    name: str
    state: str
    variants: tuple[str, ...]
    kind: str
    description: str
    amounts: dict[str, int | float]


def read(path: Path) -> list[Flag]:
    """Read all flags with their states.

    Raises:
        FlagError: The file is invalid.
    """
    return [_flag(name, entry) for name, entry in _load(path)["flags"].items()]


def switch(path: Path, name: str, state: str) -> None:
    """Switch a flag; `on` means its default variant.

    Raises:
        FlagError: There is no such flag or variant.
    """
    change(path, {name: state})


def change(path: Path, states: dict[str, str]) -> None:
    """Switch several flags at once; see `switch`."""
    with locked(path.parent):
        content = _load(path)
        for name, state in states.items():
            entry = content["flags"].get(name)
            if entry is None:
                raise FlagError(f"There is no fault {name}{near(name, content['flags'])}. `make fault` lists them.")
            variant = state if state in entry["variants"] and state != OFF else _first(entry)
            if state == OFF:
                content["flags"][name] = entry | {"state": "DISABLED", "defaultVariant": variant}
            elif state in entry["variants"] or state == "on":
                content["flags"][name] = entry | {"state": "ENABLED", "defaultVariant": variant}
            else:
                known = ", ".join(dict.fromkeys([OFF, "on", *entry["variants"]]))
                raise FlagError(f"{name} cannot be {state}{near(state, entry['variants'])}: it can be {known}.")
        _replace(path, rundir.rendered(content))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that no other process changes its files meanwhile.

    The folder and not the file, because the file is replaced, and those who may replace it own the folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FlagError(f"{folder} cannot be read ({error.strerror}): is the shop up?") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _first(entry: dict[str, Any]) -> str:
    """Return the variant that `on` means, the first except `off`. The file's default is the variant that is on."""
    return next((variant for variant in entry["variants"] if variant != OFF), OFF)


def _flag(name: str, entry: dict[str, Any]) -> Flag:
    about = entry.get("metadata", {})
    variants = [variant for variant in entry["variants"] if variant != OFF]
    state = entry["defaultVariant"] if entry["state"] == "ENABLED" else OFF
    numbers = {
        variant: value
        for variant, value in entry["variants"].items()
        if variant != OFF and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Flag(name, state, tuple(variants), about.get("kind", ""), about.get("description", ""), numbers)


def _load(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in content["flags"].items():
            _flag(name, entry)
    except OSError as error:
        raise FlagError(f"{path} cannot be read ({error.strerror}): is the shop up?") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FlagError(f"{path} is no file of flags ({type(error).__name__}): copy {DEFAULT} over it.") from error
    return content


def spelt(name: str) -> str:
    """Return a name in the usual spelling."""
    return name.lower().replace("_", "-")


def near(word: str, known: Iterable[str]) -> str:
    """Return a question that suggests a similar known name, or an empty text if there is none."""
    close = difflib.get_close_matches(spelt(word), list(known), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _replace(path: Path, text: str) -> None:
    """Replace a file by renaming a new one, so that readers always see a complete file."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".flags-")
    except OSError as error:
        raise FlagError(
            f"{path.parent} cannot be written to ({error.strerror}): `make fault` as its owner can."
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)  # in Compose, services run as other users
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
