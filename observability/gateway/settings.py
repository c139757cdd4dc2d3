"""What can be chosen about the gateway's telemetry."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from servicekit.config import LogSettings

ROUTES = Path(__file__).resolve().parents[2] / "nginx" / "gateway" / "routes.conf"
"""nginx's table of routes: what it does not have is `unmatched`."""


class GatewaySettings(LogSettings):
    """The settings of the process. Each is read from the environment variable of its name in capitals."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(9145, ge=1, le=65535, description="Port of `/metrics` and `/healthz`.")
    gateway_tracing: Literal["log", "module", "off"] = Field(
        "log", description="The same as for nginx. With `log`, spans and metrics are made, else only metrics."
    )
    access_log_file: Path | None = Field(None, description="The access log to read; set this or ACCESS_LOG_OTLP_PORT.")
    state_file: Path | None = Field(
        None, description="File for the reading position. Unset: ACCESS_LOG_FILE with `.position`."
    )
    access_log_otlp_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which to receive the log's lines from a Collector, by OTLP/HTTP."
    )
    gateway_url: str | None = Field(
        None,
        pattern=r"^http://[^/]+$",
        description="The gateway to ask every 2 s whether it answers, for `gateway_up`.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.access_log_file is None) == (self.access_log_otlp_port is None):
            raise ValueError("set either ACCESS_LOG_FILE or ACCESS_LOG_OTLP_PORT")
        return self

    @property
    def ports(self) -> list[int]:
        """The ports to listen on."""
        return [port for port in (self.port, self.access_log_otlp_port) if port is not None]
