"""The format of a scenario's file, `scenarios/NAME.yaml`, which is validated when it is read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scenarios.errors import ScenarioError

FOLDER = Path(__file__).resolve().parent

Kind = Literal["latency", "errors", "resources", "network", "deployment", "telemetry"]
Text = Annotated[str, Field(min_length=3)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fault(_Said):
    """A feature flag that is switched on."""

    fault: Name
    to: str = "on"


class Restart(_Said):
    """A part that is restarted with other settings, and optionally a flag."""

    restart: str
    environment: dict[str, str]
    fault: Name | None = None
    to: str = "on"


class Freeze(_Said):
    """A part that is frozen by SIGSTOP, as if its machine hung."""

    freeze: str


class Replica(_Said):
    """A second replica of a service behind the gateway, with other settings, and optionally a flag."""

    replica: str
    environment: dict[str, str]
    fault: Name | None = None
    to: str = "on"


class Flood(_Said):
    """A client that sends far too many requests per second, which are rejected."""

    flood: Literal["login"]
    rate: int = Field(60, ge=1, le=500)


class Scribble(_Said):
    """A line that is written into a part's log each second."""

    scribble: str
    line: Text


Switch = Fault | Restart | Freeze | Replica | Flood | Scribble


class Load(_Said):
    """The customers' load."""

    orders: float = Field(default=8, gt=0, le=100, description="Orders a second.")
    products: list[int] = Field(default=[1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 19, 20, 25], min_length=1)
    customers: int = Field(default=8, ge=2, le=32, description="How many at once; the first is the demo login.")


class Of(_Said):
    """Which requests are measured."""

    route: Literal["POST /orders/", "GET /orders/{order_id}", "GET /products/{product_id}", "POST /auth/login"] = (
        "POST /orders/"
    )
    products: list[int] | None = None
    demo_login: bool | None = None


class Effect(_Said):
    """What users feel, as a number that is measured before and during the fault.

    `p95` is in seconds. `errors` (no answer, or a 5xx), `pending` (202), `declined` (402) and `refused` (429) are
    shares of requests. People who use the telemetry are users, too. `untraced` is the share of orders whose trace is
    not complete after three seconds. `disordered` is the share of orders with a span that begins before its parent, or
    after its parent's end. `crowding` is the share of the newest log lines that have the most frequent event (`query`
    selects the log). Otherwise `query` is a PromQL expression.
    """

    measure: Literal["p95", "errors", "pending", "declined", "refused", "untraced", "disordered", "crowding", "query"]
    of: Of = Of()
    query: str | None = None
    before: float = Field(description="At most this before, and again after.")
    during: float = Field(description="At least this while the fault is on, for six seconds without a break.")
    felt: Text = Field(description="What it is for users, in words.")

    @model_validator(mode="after")
    def _right(self) -> Effect:
        if self.during <= self.before:
            raise ValueError("`during` has to be above `before`: else nobody feels anything")
        if (self.measure in {"query", "crowding"}) != (self.query is not None):
            raise ValueError("`query` goes with `measure: query` or `crowding`, and only with these")
        return self


class Trace(_Said):
    """A span that the traces must contain."""

    service: str
    operation: str
    over: float = Field(0, ge=0, description="It takes more than so many seconds.")
    ahead: float = Field(0, ge=0, description="It begins so many seconds in the future, by the clock of who looks.")
    attributes: dict[str, str | int | bool] = {}


class Log(_Said):
    """Lines that the log must contain."""

    service: str
    event: str
    where: dict[str, str] = {}
    least: int = Field(1, ge=1)


class Panel(_Said):
    """A panel of a dashboard that must show the fault."""

    dashboard: str
    title: str


class Signals(_Said):
    """The signals in which the fault must show."""

    alerts: list[str] = []
    traces: list[Trace] = []
    logs: list[Log] = []
    metrics: list[str] = Field(default=[], description="Expressions of Prometheus' that are true while it lasts.")
    panels: list[Panel] = []

    @model_validator(mode="after")
    def _some(self) -> Signals:
        if not (self.traces or self.logs or self.metrics or self.alerts):
            raise ValueError("a scenario has to promise a signal")
        return self


class Truth(_Said):
    """The cause, by its names in the telemetry."""

    service: str
    operation: str | None = None
    attribute: str | None = Field(None, description="`name=value`, or a name alone, where it is only some requests.")


class Scenario(_Said):
    """A fault, its effect on users, its signals, and the true cause."""

    name: Name
    kind: Kind
    teaches: Text
    switch: Switch
    load: Load = Load()
    effect: Effect
    signals: Signals
    no_alert: Text | None = Field(None, description="Why none is promised, where none is.")
    silent: list[str] = Field(default=[], description="Alerts that must not be raised by it.")
    truth: Truth
    runbook: str | None = None
    patience: float = Field(35, gt=0, le=180, description="Seconds within which all has to be seen.")

    @model_validator(mode="after")
    def _alert_or_reason(self) -> Scenario:
        if bool(self.signals.alerts) == (self.no_alert is not None):
            raise ValueError("promise an alert, or say in `no_alert` why none sees it")
        return self


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioError: There is no scenario of this name, or its file is invalid.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ScenarioError(f"There is no scenario {name!r}.{hint} `python -m scenarios list` lists them.")
    return parse(name, (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Scenario:
    """Parse the text of a scenario's file.

    Raises:
        ScenarioError: It is invalid; the message says where and why.
    """
    try:
        said: Any = yaml.safe_load(text)
        return Scenario.model_validate({"name": name, **(said if isinstance(said, dict) else {"": said})})
    except yaml.YAMLError as error:
        raise ScenarioError(f"scenarios/{name}.yaml is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ScenarioError(f"scenarios/{name}.yaml is not valid: {problems}") from error
