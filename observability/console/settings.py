"""What can be chosen about the console."""

from pathlib import Path

from pydantic import Field

from servicekit.config import LogSettings, Url


class ConsoleSettings(LogSettings):
    """The settings of the process. Each is read from the environment variable of its name in capitals."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    console_port: int = Field(3000, ge=1, le=65535, description="Port of the console's pages.")
    gateway_url: Url = Field("http://127.0.0.1:8080", description="The shop's gateway.")
    jaeger_url: Url = Field("http://127.0.0.1:16686", description="Jaeger's HTTP API.")
    loki_url: Url = Field("http://127.0.0.1:3100", description="Loki's HTTP API.")
    prometheus_url: Url = Field("http://127.0.0.1:9090", description="Prometheus' HTTP API.")
    prometheus_public_url: Url | None = Field(
        None, description="Prometheus' address for links, as the reader's machine reaches it. Unset: no links."
    )
    grafana_url: Url | None = Field(None, description="Grafana's address for links. Unset: no links.")
    jaeger_public_url: Url | None = Field(
        None,
        description="Jaeger's address for links and copied commands, as the reader's machine reaches it."
        " Unset: `JAEGER_URL`.",
    )
    loki_public_url: Url | None = Field(
        None, description="Loki's address for copied commands, as the reader's machine reaches it. Unset: `LOKI_URL`."
    )
    jaeger_ui: bool = Field(default=False, description="Whether Jaeger has a web UI to link to.")
    console_demo_login: bool = Field(
        default=True,
        description="Whether the console logs in as the demo user by itself. `false`: it asks for a login.",
    )
    flags_file: Path | None = Field(
        None,
        description="The services' file of flags, for the page Faults."
        " To switch one, it must be able to write to the folder.",
    )
    trusted_hosts: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._, -]*$",
        description="Further names that a request's `Host` may have, separated by commas; `.example.org` allows"
        " all names below it. The service's own name, `localhost` and IP addresses are always allowed.",
    )
