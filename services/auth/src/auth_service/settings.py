"""auth-service's settings."""

from pathlib import Path

from pydantic import Field

from servicekit.config import ServiceSettings, Settings, Url
from servicekit.flags import FlagSettings
from shop.settings import ShopTokenSettings


class KeySettings(Settings):
    """The settings of the signing keys."""

    auth_keys_dir: Path = Field(description="Folder of the signing keys, shared by auth-service's replicas.")
    token_ttl_seconds: int = Field(3600, ge=60, le=86400, description="Lifetime of a token.")


class AuthSettings(KeySettings, ShopTokenSettings, ServiceSettings, FlagSettings):
    """All settings of auth-service."""

    client_secrets_dir: Path = Field(
        description="Folder with the secret of each service that may ask for tokens, in a file of the service's name."
    )
    user_url: Url = Field("http://127.0.0.1:5002", description="user-service, which checks credentials.")
