"""What can be chosen about a local stack, and the limits of each choice."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parent.parent
"""The folder of the project."""

_LIMITS = {"start_timeout_seconds": (1, 3600)}
_PORT_LIMITS = (1, 65535)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one stack. Each is read from the environment variable of its name in capitals."""

    run_dir: Path
    """Where all state lives: data, logs, secrets, generated configuration."""
    gateway_port: int = 8080
    auth_port: int = 5001
    user_port: int = 5002
    product_port: int = 5003
    order_port: int = 5004
    payment_port: int = 5005
    order_db_port: int = 5433
    start_timeout_seconds: int = 60
    """How long a part may take from its start until it can serve, in seconds."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from an environment; what is unset or empty keeps its default.

        Raises:
            LocalError: A value is no number, out of its bounds, or two ports are the same.
        """
        numbers = {
            field.name: _number(field.name, environ[field.name.upper()])
            for field in dataclasses.fields(cls)
            if field.name != "run_dir" and environ.get(field.name.upper())
        }
        run_dir = Path(environ.get("RUN_DIR") or PROJECT / ".run").expanduser().resolve()
        settings = cls(run_dir=run_dir, **numbers)
        settings._refuse_shared_ports()
        return settings

    @classmethod
    def of_running(cls, run_dir: Path, environ: Mapping[str, str]) -> Self:
        """Read the settings that the running stack of `run_dir` was started with.

        Args:
            run_dir: The stack's folder.
            environ: What the caller wishes for now; only the timeout can change while the stack runs.

        Raises:
            LocalError: The caller names a port that differs from the running stack's.
        """
        numbers = json.loads(_stored(run_dir).read_text(encoding="utf-8"))
        for name, now in numbers.items():
            wish = environ.get(name.upper())
            if name.endswith("_port") and wish and _number(name, wish) != now:
                raise LocalError(
                    f"The stack is up with {name.upper()}={now}: run `make down` before you make it {wish}."
                )
        if wish := environ.get("START_TIMEOUT_SECONDS"):
            numbers["start_timeout_seconds"] = _number("start_timeout_seconds", wish)
        return cls(run_dir=run_dir, **numbers)

    def store(self) -> None:
        """Write the settings down, so that later commands find the stack in any environment."""
        numbers = dataclasses.asdict(self)
        del numbers["run_dir"]
        _stored(self.run_dir).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """Give the settings as environment variables, for programs that look at this stack."""
        return {name.upper(): str(value) for name, value in dataclasses.asdict(self).items()}

    def _refuse_shared_ports(self) -> None:
        seen: dict[int, str] = {}
        for name, value in dataclasses.asdict(self).items():
            if not name.endswith("_port"):
                continue
            if value in seen:
                raise LocalError(f"{seen[value].upper()} and {name.upper()} are both {value}: change one.")
            seen[value] = name


def _number(name: str, text: str) -> int:
    low, high = _LIMITS.get(name, _PORT_LIMITS)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise LocalError(f"{name.upper()} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def _stored(run_dir: Path) -> Path:
    return run_dir / "conf" / "settings.json"
