"""What can be chosen about a load test. Each has a flag (`--think-seconds 1`) and a variable (LOAD_THINK_SECONDS=1)."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotations
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loadtest.shapes import Limits, Shape, ShapeName, named

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]

JOURNEYS = ("browse", "order", "history", "decline", "mistake")


class LoadSettings(BaseSettings):
    """Puts load on the shop that runs here, through the gateway, and checks the books afterwards."""

    model_config = SettingsConfigDict(
        env_prefix="LOAD_",
        env_ignore_empty=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
        frozen=True,
    )

    shape: ShapeName = "steady"
    """What it is for: smoke, steady, ramp, spike or soak."""
    users: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Users at the most; by default the shape's."""
    seconds: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """How long it takes; by default as long as the shape."""
    think_seconds: Annotated[float, Field(ge=0, le=60)] | None = None
    """How long a user thinks between two journeys, on average; by default the shape's."""
    mix: str = "browse=10 order=7 history=2 decline=1 mistake=1"
    """Weights of the journeys; what is left out is not made."""
    traced: Share = 0.1
    """Share of the requests that bring a traceparent: these are traced whatever the gateway's share is."""

    max_failed: Share | None = None
    """Limit: share of the requests that fail; by default the shape's."""
    p95_ms: Positive | None = None
    """Limit: 95 % of the orders are answered within; by default the shape's, if it has one."""
    p99_ms: Positive | None = None
    """Limit: 99 % of the orders are answered within; by default the shape's, if it has one."""
    min_rate: Positive | None = None
    """Limit: requests a second at least; by default none."""

    host: str | None = None
    """The gateway, such as http://127.0.0.1:8080; by default that of the shop that runs here."""
    allow_remote: bool = False
    """Let the host be another machine."""
    username: str = "admin"
    """Who buys."""
    password: SecretStr = SecretStr("password")
    """The password; better given as LOAD_PASSWORD, since others can see flags."""
    logins_per_second: Positive = 5.0
    """Logins at the most; who comes faster takes a token that another user got."""

    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that make load on this machine."""
    workers: Annotated[int, Field(ge=0, le=1000)] = 0
    """Wait for so many workers elsewhere, and let them make the load."""
    ui: bool = False
    """Open Locust's page, and let it start and stop the load."""
    ui_port: Annotated[int, Field(ge=1, le=65535)] = 8089
    """The page's port, on 127.0.0.1."""
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 9646
    """Where the load test's own metrics are; each further process takes the next port."""
    metrics_host: str = "127.0.0.1"
    """The address to listen on for that."""

    books: bool = True
    """Look into the order database afterwards."""
    settle_seconds: Annotated[float, Field(ge=0, le=600)] = 30.0
    """How long a PENDING order may take to be settled after the end."""
    prometheus: str | None = None
    """Prometheus, for the server's view; by default that of the shop that runs here."""
    results: Path | None = None
    """Folder for the results; by default RUN_DIR/load."""

    @field_validator("mix")
    @classmethod
    def _known_journeys(cls, mix: str) -> str:
        weights(mix)
        return mix

    def plan(self) -> Shape:
        """Give the shape, with what was chosen instead of its own numbers."""
        shape = named(self.shape, users=self.users, seconds=self.seconds, think_seconds=self.think_seconds)
        if "order" not in self.weights():  # then the shape's own limits of orders have nothing to say
            shape = shape.with_limits(p95_ms=None, p99_ms=None)
        own: dict[str, Any] = {name: getattr(self, name) for name in Limits.names()}
        return shape.with_limits(**{name: value for name, value in own.items() if value is not None})

    def weights(self) -> dict[str, int]:
        """Give the weight of each journey."""
        return weights(self.mix)

    def environment(self) -> dict[str, str]:
        """Give the settings as variables, for the processes that make the load."""
        values = self.model_dump(exclude_none=True) | {"password": self.password.get_secret_value()}
        return {f"LOAD_{name.upper()}": str(value) for name, value in values.items()}


def weights(mix: str) -> dict[str, int]:
    """Read the weights of the journeys.

    Raises:
        ValueError: There is no such journey, a weight is no whole number, or all are 0.
    """
    found: dict[str, int] = {}
    for word in mix.replace(",", " ").split():
        name, _, weight = word.partition("=")
        if name not in JOURNEYS or not weight.isdecimal():
            raise ValueError(f"{word!r} should be like order=7, with one of {', '.join(JOURNEYS)}")
        found[name] = int(weight)
    if not sum(found.values()):
        raise ValueError("no journey has a weight")
    return {name: weight for name, weight in found.items() if weight}
