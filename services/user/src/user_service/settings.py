"""user-service's settings."""

from pydantic import Field

from servicekit.config import ServiceSettings, Settings
from servicekit.flags import FlagSettings
from shop.settings import OrderDbSettings, ShopVerifierSettings


class UserSettings(OrderDbSettings, ShopVerifierSettings, ServiceSettings, FlagSettings):
    """All settings of user-service."""


class SeedSettings(Settings):
    """The settings of the seed step."""

    seed_demo_admin: bool = Field(
        default=True,
        description="Whether the seed step opens the demo login `admin` / `password`. `false` closes it, at the next"
        " start, even if it was open before.",
    )
