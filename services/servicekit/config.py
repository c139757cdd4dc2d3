"""Settings, read from the environment once, when a process starts."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_BODY = 64 * 1024
"""The most bytes of a request's body; the gateway has the same limit."""


class ConfigError(RuntimeError):
    """The environment does not make a valid configuration. The message names each variable."""


def _without_trailing_slash(url: str) -> str:
    return url.rstrip("/")


Url = Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$"), AfterValidator(_without_trailing_slash)]
"""The root of a peer: scheme, host and port, no path."""


class Settings(BaseSettings):
    """The base of all settings: field `token_ttl_seconds` is environment variable `TOKEN_TTL_SECONDS`."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")


class ServiceSettings(Settings):
    """Limits on a replica's concurrent requests, for all services. OpenTelemetry's settings are in `telemetry`."""

    threads: int = Field(16, ge=1, le=256, description="Requests that a replica works on at the same time.")
    queue_length: int = Field(
        100, ge=0, le=1000, description="Requests that may wait for a thread; further ones get 503 at once."
    )
    queue_wait_seconds: float = Field(
        2.0, ge=0, le=10, description="How long a request waits for a thread before it gets 503."
    )
    trusted_hosts: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._, -]*$",
        description="Further names that a request's `Host` may have, separated by commas; `.example.org` allows"
        " all names below it. The service's own name, `localhost` and IP addresses are always allowed.",
    )


class LogSettings(Settings):
    """The level of a process's log."""

    log_level: Annotated[str, BeforeValidator(str.lower)] = Field(
        "info", pattern="^(debug|info|warning|error|critical)$", description="The least severe level logged."
    )


class ServerSettings(LogSettings, ServiceSettings):
    """How a service's process listens and logs."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    graceful_timeout_seconds: int = Field(
        15, ge=1, le=300, description="How long requests in flight may take to finish after SIGTERM."
    )


class DatabaseSettings(Settings):
    """The address of the service's database, and time limits."""

    database_host: str = Field("127.0.0.1", description="PostgreSQL's host.")
    database_port: int = Field(5432, ge=1, le=65535, description="PostgreSQL's port.")
    database_name: str = Field(description="The database that holds the schemas.")
    database_user: str = Field(description="The service's role, which can use its own schema only.")
    database_password_file: Path = Field(description="File with that role's password.")
    database_pool_size: int = Field(10, ge=1, le=100, description="The most connections that a replica opens.")
    database_pool_wait_seconds: float = Field(
        1.0, gt=0, le=30, description="How long a request waits for a free connection before it gets 503."
    )
    database_timeout_seconds: float = Field(
        3.0, gt=0, le=60, description="How long one statement, or connecting, may take."
    )


class TokenSettings(Settings):
    """The claims that a token must have to be accepted."""

    token_issuer: str = Field(description="`iss` of the tokens.")
    token_audience: str = Field(description="`aud` of the tokens.")


class VerifierSettings(TokenSettings):
    """What a service needs to verify tokens that the application's authority signed."""

    auth_url: Url = Field(description="Root of the authority, which publishes keys and gives services their tokens.")
    keys_kept_seconds: int = Field(
        3600,
        ge=60,
        le=86400,
        description="How long old keys are used while the issuer of the tokens does not answer; then tokens get 503.",
    )


class ClientSettings(Settings):
    """What a service needs to get tokens of its own, for calls to internal routes of others."""

    client_secret_file: Path = Field(
        description="File with the secret that proves to the authority who this service is."
    )


_S = TypeVar("_S", bound=Settings)


def load(settings: type[_S]) -> _S:
    """Read settings from the environment.

    Args:
        settings: The class to fill.

    Returns:
        The filled, frozen settings.

    Raises:
        ConfigError: A variable is missing or invalid. Values are left out: one may be a secret.
    """
    try:
        return settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise ConfigError(problems) from None
