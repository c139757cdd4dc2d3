"""order-service's settings."""

from pydantic import Field

from servicekit.config import ClientSettings, ServiceSettings, Url
from servicekit.flags import FlagSettings
from shop.settings import OrderDbSettings, ShopVerifierSettings


class OrderSettings(OrderDbSettings, ClientSettings, ShopVerifierSettings, ServiceSettings, FlagSettings):
    """All settings of order-service."""

    product_url: Url = Field("http://127.0.0.1:5003", description="product-service.")
    product_timeout_seconds: float = Field(1.0, gt=0, le=5, description="How long product-service may take to answer.")
    payment_url: Url = Field("http://127.0.0.1:5005", description="payment-service.")
    payment_timeout_seconds: float = Field(
        3.0, gt=0, le=5, description="How long payment-service may take to answer; after that the client gets 202."
    )

    @property
    def lease_seconds(self) -> float:
        """The lease of a PENDING order, in seconds: long enough for two tries of a charge, including connecting.

        If the database is slow, the work may take longer. Then a request and a reconciler, or two reconcilers, may work
        on the same order. This does no harm, because both use the same idempotency key for the payment.
        """
        return 2 * (self.payment_timeout_seconds + 1) + 2
