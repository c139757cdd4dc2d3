"""user-service's settings."""

from pydantic import Field

from servicekit.config import ServiceSettings, Settings
from shop.settings import OrderDbSettings, ShopVerifierSettings


class UserSettings(OrderDbSettings, ShopVerifierSettings, ServiceSettings):
    """All of them."""


class SeedSettings(Settings):
    """Whether and what to seed."""

    seed_demo_admin: bool = Field(
        default=True,
        description="Whether the seed step opens the demo login `admin` / `password`. `false` closes it, at the next"
        " start, also where it was open before.",
    )
