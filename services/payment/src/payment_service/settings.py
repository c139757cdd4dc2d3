"""payment-service's settings."""

from pydantic import Field

from servicekit.config import ServiceSettings, Settings
from shop.settings import OrderDbSettings, ShopVerifierSettings


class ProcessorSettings(Settings):
    """The simulated processor."""

    payment_limit_minor: int = Field(
        100_000, ge=0, description="Charges above this amount, in minor units, are declined. Always on."
    )
    payment_latency_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description="Fault: how long the processor thinks. Teaches what a slow dependency does to its callers.",
    )
    payment_decline_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fault: share of charges declined. Teaches to tell a failure of business from one of technology.",
    )
    payment_outage: bool = Field(
        default=False,
        description="Fault: the processor does not answer. Teaches what PENDING orders and the reconciler are for.",
    )


class PaymentSettings(OrderDbSettings, ShopVerifierSettings, ServiceSettings, ProcessorSettings):
    """All of them."""
