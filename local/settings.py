"""What can be chosen about a local stack, and the limits of each choice."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parent.parent
"""The folder of the project."""

_LIMITS = {"start_timeout_seconds": (1, 3600), "graceful_timeout_seconds": (1, 300)}
_PORT_LIMITS = (1, 65535)
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


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
    otlp_port: int = 4318
    jaeger_port: int = 16686
    loki_port: int = 3100
    prometheus_port: int = 9090
    gateway_telemetry_port: int = 9145
    console_port: int = 3000
    telemetry: bool = True
    """Whether the backends run beside the shop, and get its traces, metrics and logs."""
    start_timeout_seconds: int = 60
    """How long a part may take from its start until it can serve, or a task until it ends, in seconds."""
    graceful_timeout_seconds: int = 15
    """How long a service gives requests in flight when it is stopped, in seconds; the services read it too."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from an environment; what is unset or empty keeps its default.

        Raises:
            LocalError: A value is none of its kind, out of its bounds, or two ports are the same.
        """
        values: dict[str, Any] = {
            name: _value(name, environ[name.upper()]) for name in _names(cls) if environ.get(name.upper())
        }
        settings = cls(run_dir=run_dir(environ), **values)
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
        return cls(run_dir=run_dir, **{name: stored[name] for name in _names(cls) if name in stored})

    def store(self) -> None:
        """Write the settings down, so that later commands find the stack in any environment."""
        values = {name: getattr(self, name) for name in _names(type(self))}
        _stored(self.run_dir).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def ports(self) -> dict[str, int]:
        """Give the ports by their variables."""
        return {name.upper(): getattr(self, name) for name in _names(type(self)) if name.endswith("_port")}

    def environment(self) -> dict[str, str]:
        """Give the settings as environment variables, for programs that look at this stack."""
        values = dataclasses.asdict(self) | {"telemetry": "on" if self.telemetry else "off"}
        return {name.upper(): str(value) for name, value in values.items()}


def run_dir(environ: Mapping[str, str]) -> Path:
    """Read only where the state lives: enough to look at a stack or to stop it."""
    return Path(environ.get("RUN_DIR") or PROJECT / ".run").expanduser().resolve()


def _names(settings: type[Settings]) -> list[str]:
    return [field.name for field in dataclasses.fields(settings) if field.name != "run_dir"]


def _value(name: str, text: str) -> int | bool:
    if name == "telemetry":
        if text.lower() not in _SWITCH:
            raise LocalError(f"{name.upper()} must be on or off, not {text!r}.")
        return _SWITCH[text.lower()]
    low, high = _LIMITS.get(name, _PORT_LIMITS)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise LocalError(f"{name.upper()} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def _stored(run_dir: Path) -> Path:
    return run_dir / "conf" / "settings.json"
