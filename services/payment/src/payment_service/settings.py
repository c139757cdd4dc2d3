"""payment-service's settings."""

from pydantic import Field

from servicekit.config import ServiceSettings, Settings
from servicekit.flags import FlagSettings
from shop.settings import OrderDbSettings, ShopVerifierSettings


class ProcessorSettings(Settings):
    """The settings of the simulated processor."""

    payment_limit_minor: int = Field(
        100_000, ge=0, description="Charges above this amount, in minor units (cents), are declined."
    )


class PaymentSettings(OrderDbSettings, ShopVerifierSettings, ServiceSettings, FlagSettings, ProcessorSettings):
    """All settings of payment-service."""
