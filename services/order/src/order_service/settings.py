"""order-service's settings."""

from pydantic import Field

from servicekit.config import ClientSettings, ServiceSettings, Url
from shop.settings import OrderDbSettings, ShopVerifierSettings


class OrderSettings(OrderDbSettings, ClientSettings, ShopVerifierSettings, ServiceSettings):
    """All of them."""

    product_url: Url = Field("http://127.0.0.1:5003", description="product-service.")
    product_timeout_seconds: float = Field(1.0, gt=0, le=5, description="How long product-service may take to answer.")
    payment_url: Url = Field("http://127.0.0.1:5005", description="payment-service.")
    payment_timeout_seconds: float = Field(
        3.0, gt=0, le=5, description="How long payment-service may take; after that the client gets 202."
    )

    @property
    def lease_seconds(self) -> float:
        """How long a PENDING order is left to whoever works on it: a charge's two tries, each with its connecting.

        A slow database can make the work longer than that. Then two may work on one order, which the payment's
        idempotency key makes a waste and no harm.
        """
        return 2 * (self.payment_timeout_seconds + 1) + 2
