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

_LIMITS = {"start_timeout_seconds": (1, 3600), "graceful_timeout_seconds": (1, 300)}
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
    """How long a part may take from its start until it can serve, or a task until it ends, in seconds."""
    graceful_timeout_seconds: int = 15
    """How long a service gives requests in flight when it is stopped, in seconds; the services read it too."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from an environment; what is unset or empty keeps its default.

        Raises:
            LocalError: A value is no number, out of its bounds, or two ports are the same.
        """
        numbers = {name: _number(name, environ[name.upper()]) for name in _numbers(cls) if environ.get(name.upper())}
        settings = cls(run_dir=run_dir(environ), **numbers)
        seen: dict[int, str] = {}
        for name, port in settings.ports().items():
            if port in seen:
                raise LocalError(f"{seen[port]} and {name} are both {port}: change one.")
            seen[port] = name
        return settings

    @classmethod
    def of_running(cls, run_dir: Path) -> Self:
        """Read the settings that the running stack of `run_dir` was started with, maybe by other code than this."""
        stored = json.loads(_stored(run_dir).read_text(encoding="utf-8"))
        return cls(run_dir=run_dir, **{name: stored[name] for name in _numbers(cls) if name in stored})

    def store(self) -> None:
        """Write the settings down, so that later commands find the stack in any environment."""
        numbers = {name: getattr(self, name) for name in _numbers(type(self))}
        _stored(self.run_dir).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

    def ports(self) -> dict[str, int]:
        """Give the ports by their variables."""
        return {name.upper(): getattr(self, name) for name in _numbers(type(self)) if name.endswith("_port")}

    def environment(self) -> dict[str, str]:
        """Give the settings as environment variables, for programs that look at this stack."""
        return {name.upper(): str(value) for name, value in dataclasses.asdict(self).items()}


def run_dir(environ: Mapping[str, str]) -> Path:
    """Read only where the state lives: enough to look at a stack or to stop it."""
    return Path(environ.get("RUN_DIR") or PROJECT / ".run").expanduser().resolve()


def _numbers(settings: type[Settings]) -> list[str]:
    return [field.name for field in dataclasses.fields(settings) if field.name != "run_dir"]


def _number(name: str, text: str) -> int:
    low, high = _LIMITS.get(name, _PORT_LIMITS)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise LocalError(f"{name.upper()} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def _stored(run_dir: Path) -> Path:
    return run_dir / "conf" / "settings.json"
