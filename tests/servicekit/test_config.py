import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from servicekit.config import (
    ConfigError,
    DatabaseSettings,
    ServerSettings,
    ServiceSettings,
    Settings,
    VerifierSettings,
    load,
)

REQUIRED = {
    "DATABASE_NAME": "sample",
    "DATABASE_USER": "app",
    "DATABASE_PASSWORD_FILE": "/nowhere",
    "TOKEN_ISSUER": "issuer",
    "TOKEN_AUDIENCE": "sample",
    "AUTH_URL": "http://127.0.0.1:5001",
}
"""What has no default: who copies servicekit has others of it."""


class Sample(Settings):
    answer_count: int = Field(ge=1)
    api_secret: str = Field("", pattern="^[a-z]*$")
    ratio: float = Field(0.5, ge=0, le=1)


def test_settings_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("ANSWER_COUNT", "42")
    assert load(Sample).answer_count == 42


def test_a_missing_variable_is_named(monkeypatch):
    monkeypatch.delenv("ANSWER_COUNT", raising=False)
    with pytest.raises(ConfigError, match="ANSWER_COUNT: Field required"):
        load(Sample)


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("ANSWER_COUNT", "42")
    monkeypatch.setenv("RATIO", "")
    assert load(Sample).ratio == 0.5


def test_every_invalid_variable_is_named_and_no_value_is_shown(monkeypatch):
    values = {"ANSWER_COUNT": "forty-two-canary", "API_SECRET": "HUNTER2-canary", "RATIO": "7.5"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        load(Sample)
    message = str(raised.value)
    assert all(name in message for name in values)
    assert not any(value in message for value in values.values())
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_settings_do_not_change_after_they_are_read(monkeypatch):
    monkeypatch.setenv("ANSWER_COUNT", "42")
    with pytest.raises(ValueError, match="frozen"):
        load(Sample).answer_count = 43


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ServerSettings, "PORT", "0"),
        (ServerSettings, "PORT", "65536"),
        (ServerSettings, "PORT", "http"),
        (ServerSettings, "THREADS", "0"),
        (ServerSettings, "LOG_LEVEL", "loud"),
        (ServiceSettings, "QUEUE_WAIT_SECONDS", "nan"),
        (ServiceSettings, "TRUSTED_HOSTS", "some/where"),
        (DatabaseSettings, "DATABASE_USER", None),
        (DatabaseSettings, "DATABASE_PASSWORD_FILE", None),
        (DatabaseSettings, "DATABASE_POOL_SIZE", "0"),
        (DatabaseSettings, "DATABASE_TIMEOUT_SECONDS", "0"),
        (DatabaseSettings, "DATABASE_POOL_WAIT_SECONDS", "nan"),
        (VerifierSettings, "AUTH_URL", "127.0.0.1:5001"),
        (VerifierSettings, "AUTH_URL", "http://127.0.0.1:5001/auth"),
        (VerifierSettings, "AUTH_URL", "ftp://127.0.0.1"),
    ],
)
def test_what_a_service_cannot_run_with_is_refused(monkeypatch, kind, name, value):
    given = {**REQUIRED, name: value}
    for variable, text in given.items():
        if text is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=name):
        load(kind)


def test_a_peers_url_may_end_with_a_slash(monkeypatch):
    for variable, text in {**REQUIRED, "AUTH_URL": "http://auth-service:5001/"}.items():
        monkeypatch.setenv(variable, text)
    assert load(VerifierSettings).auth_url == "http://auth-service:5001"


def test_a_service_needs_no_variable_to_run(monkeypatch):
    for name in (*ServiceSettings.model_fields, *ServerSettings.model_fields):
        monkeypatch.delenv(name.upper(), raising=False)
    assert load(ServiceSettings).threads == 16
    assert load(ServerSettings).port == 8000


def test_the_base_of_all_settings_reads_no_file():
    """A `.env` left somewhere must not configure a service."""
    assert SettingsConfigDict(**Settings.model_config).get("env_file") is None
