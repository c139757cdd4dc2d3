"""A line of nginx's access log, as far as its telemetry needs it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from opentelemetry.trace import SpanContext, TraceFlags
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from servicekit.telemetry.metrics import known_method

UNMATCHED = "unmatched"
"""The route of what is no route, in the log and in metrics."""

_CLIENT_ERROR, _SERVER_ERROR = 400, 500

_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
_SpanId = Annotated[str, Field(pattern="^([0-9a-f]{16})?$")]


class Line(BaseModel):
    """One request. What else is in the line does not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    service: Literal["nginx"]
    event: Literal["request.completed"]
    # The bounds are those of a span's time, which is counted in unsigned nanoseconds since 1970.
    timestamp: Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2500, 1, 1, tzinfo=UTC))]
    method: str
    http_route: str
    status: Annotated[int, Field(ge=0, le=599)]
    duration_s: _Seconds
    scheme: Literal["http", "https"]
    protocol: Literal["", "1.0", "1.1", "2"]
    server_name: Annotated[str, Field(pattern="^[a-z0-9.-]{1,100}$")]
    server_port: Annotated[int, Field(ge=1, le=65535)]
    upstream: str
    upstream_duration_s: _Seconds | None
    # Of each try, as nginx writes them: `1.001, 0.020`; `-` is a try that has no time. Older gateways lack it.
    upstream_tries_s: Annotated[str, Field(pattern=r"^([0-9.]+|-)?([,: ]+([0-9.]+|-))*$", max_length=200)] = ""
    trace_id: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")]
    span_id: _SpanId
    parent_span_id: _SpanId
    trace_flags: Annotated[str, Field(pattern="^([0-9a-f]{2})?$")]

    def served_s(self) -> float | None:
        """How long the services took for it, all tries together; None if none was asked."""
        tries = re.findall(r"[0-9]+\.[0-9]+", self.upstream_tries_s)
        return sum(map(float, tries)) if tries else self.upstream_duration_s

    def refused(self) -> bool:
        """Whether nginx said no by itself."""
        return not self.upstream and _CLIENT_ERROR <= self.status < _SERVER_ERROR

    def recorded(self) -> SpanContext | None:
        """The request's span, if somebody wants it."""
        if not (self.span_id and self.trace_id and self.trace_flags):
            return None
        flags = TraceFlags(int(self.trace_flags, 16))
        context = SpanContext(int(self.trace_id, 16), int(self.span_id, 16), is_remote=False, trace_flags=flags)
        return context if context.is_valid and flags.sampled else None


@dataclass(frozen=True)
class Vocabulary:
    """The words that may become labels. The log is nginx's own, but whoever reaches our port could send another."""

    routes: frozenset[str]
    services: frozenset[str]

    @classmethod
    def of(cls, routes_conf: Path) -> Self:
        """Take it from nginx's table of routes."""
        text = routes_conf.read_text(encoding="utf-8")
        return cls(routes=_values(text, "request_uri", "route"), services=_values(text, "route", "service"))

    def method(self, line: Line) -> str:
        """The method, or `_OTHER`."""
        return known_method(line.method)

    def route(self, line: Line) -> str:
        """The route's template, or `unmatched`."""
        return line.http_route if line.http_route in self.routes else UNMATCHED

    def service(self, line: Line) -> str | None:
        """The service that was asked, if any."""
        return line.upstream if line.upstream in self.services else None


def _values(text: str, source: str, target: str) -> frozenset[str]:
    (block,) = re.findall(rf"^map \${source} \${target} \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    values = frozenset(re.findall(r'^ +"~\S+" +"?([^\s";]+)"?;', block, re.MULTILINE))
    if not values:
        raise ValueError(f"no map of ${source} to ${target}")
    return values
