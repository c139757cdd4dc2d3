"""The answer of `make why`, and the form of its JSON, which other tools may use too."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

_URL = re.compile(r"(https?://[^?\s]*)?/api/")
TEXT = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`"""
"""A regular expression for a string in PromQL or LogQL, in one of the three kinds of quotes."""


@dataclass(kw_only=True)
class Reason:
    """A sentence, and the query that it is based on."""

    says: str
    query: str
    backend: str = field(init=False)
    """The backend of the query. A URL is for Jaeger; a query with `|` stages is LogQL for Loki; others are PromQL."""

    def __post_init__(self) -> None:
        """Set the backend."""
        stages = "|" in re.sub(TEXT, "", self.query)
        self.backend = "Jaeger" if _URL.match(self.query) else "Loki" if stages else "Prometheus"


@dataclass(kw_only=True)
class Attribute:
    """An attribute value that bad requests have more often than good ones."""

    key: str
    value: str
    bad: float = 0.0
    """The share of bad requests that have it."""
    good: float = 0.0
    """The share of good requests that have it."""
    service: str = ""
    """The service and operation of the spans that have it; empty if it is not an attribute of spans."""
    operation: str = ""


@dataclass(kw_only=True)
class Cause:
    """One thing that is wrong."""

    service: str
    operation: str = ""
    kind: str = ""
    """errors, latency, saturation, change or telemetry."""
    attributes: list[Attribute] = field(default_factory=list)
    """Attributes that bad requests have in common, the most significant first."""
    confidence: float = 0.0
    impact: float = 0.0
    """Seconds per second that users lose because of it."""
    because: list[Reason] = field(default_factory=list)
    runbook: str = ""

    @property
    def loss(self) -> Reason | None:
        """How much time it costs users, with the query for the bad requests; None if it costs nothing."""
        if not self.impact:
            return None
        query = next((one.query for one in self.because if one.backend == "Jaeger"), "")
        says = f"It costs users {self.impact:.2f} seconds of waiting per second (a failed request counts as three"
        says += " seconds, one that succeeded although a part of it failed as one second)."
        return Reason(says=says, query=query)


@dataclass(kw_only=True)
class Pair:
    """Two traces to compare: a bad one of the first cause, and a good one of the same kind of request."""

    bad: str
    good: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    """A row for each operation: count, own time in ms and errors, in the good trace and in the bad one."""
    queries: list[str] = field(default_factory=list)
    """Jaeger's URLs of the good trace and of the bad one."""


@dataclass(kw_only=True)
class Answer:
    """The complete answer."""

    state: str = "well"
    """`well`, `wrong`, `over` (it was wrong a minute ago, or an alert still covers that time), or
    `unexplained` (an alert fires, and no cause was found)."""
    at: str = ""
    since: str = ""
    causes: list[Cause] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """Firing alerts, the newest first, then pending ones, with the values that they measure now and before."""
    notes: list[Reason] = field(default_factory=list)
    """Observations that are not causes."""
    pair: Pair | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The log lines of the bad trace."""
    lines_query: str = ""
    """The LogQL query for them."""
    not_looked_at: list[str] = field(default_factory=list)
    """The backends that could not be queried, and why."""
    seconds: float = 0.0

    def sentences(self) -> list[Reason]:
        """Return all sentences of the answer, each with the query that it is based on."""
        found = [reason for cause in self.causes for reason in (cause.loss, *cause.because) if reason]
        found += [Reason(says=alert["says"], query=alert["measure"]) for alert in self.alerts if alert["says"]]
        found += self.notes
        if self.pair:
            names = (self.pair.good, self.pair.bad)
            found += [Reason(says=name, query=query) for name, query in zip(names, self.pair.queries, strict=True)]
        if self.lines:
            found.append(Reason(says="what the bad one logged", query=self.lines_query))
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as types of JSON."""
        return dataclasses.asdict(self)
