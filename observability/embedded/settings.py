"""What can be chosen about the embedded backend."""

from pathlib import Path

from pydantic import Field

from servicekit.config import LogSettings


class BackendSettings(LogSettings):
    """The settings of the process. Each is read from the environment variable of its name in capitals."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    otlp_port: int = Field(4318, ge=1, le=65535, description="Port of OTLP/HTTP, and of `/metrics`.")
    jaeger_port: int = Field(16686, ge=1, le=65535, description="Port of Jaeger's HTTP API.")
    loki_port: int = Field(3100, ge=1, le=65535, description="Port of Loki's HTTP API.")
    embedded_database: Path = Field(Path("embedded.sqlite"), description="The SQLite file.")
    log_files: str = Field("", description="Files of JSON lines to follow: paths or patterns, separated by commas.")
    log_lines_lost_file: Path | None = Field(
        None,
        description="File in which the writer of `LOG_FILES` counts lines that it could not write.",
    )
    retention_hours: float = Field(24.0, gt=0, le=24 * 365, description="Older data is deleted.")
    max_database_mb: int = Field(1024, ge=16, le=1024 * 1024, description="Above this size the oldest data is deleted.")
    queue_mb: int = Field(4, ge=1, le=1024, description="How much data may wait to be written; then senders must wait.")
    max_request_mb: int = Field(8, ge=1, le=64, description="The largest body of a request, unpacked.")
    deployment_environment: str = Field(
        "local", description="The environment's name, a label of the lines of `LOG_FILES`."
    )
    trusted_hosts: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._, -]*$",
        description="Further names that a request's `Host` may have, separated by commas; `.example.org` allows"
        " all names below it. The service's own name, `localhost` and IP addresses are always allowed.",
    )
