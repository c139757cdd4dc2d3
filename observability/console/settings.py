"""What can be chosen about the console."""

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
        None, description="Prometheus as the reader's machine reaches it, if there is one to link to."
    )
    grafana_url: Url | None = Field(None, description="Grafana, if there is one to link to.")
    jaeger_public_url: Url | None = Field(
        None,
        description="Jaeger as the browser's machine reaches it, for links and copied commands. `JAEGER_URL` if unset.",
    )
    loki_public_url: Url | None = Field(
        None, description="Loki as the reader's machine reaches it, for copied commands. `LOKI_URL` if unset."
    )
    jaeger_ui: bool = Field(default=False, description="Whether Jaeger has pages too, to link to.")
    console_demo_login: bool = Field(
        default=True,
        description="Whether the console signs in as the demo user by itself. `false`: it asks who is there.",
    )
    trusted_hosts: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._, -]*$",
        description="Further names that a request's `Host` may have, separated by commas; `.example.org` is all below"
        " it. The service's own name, `localhost` and addresses always may.",
    )
