"""order-service's settings."""

from pydantic import Field

from servicekit.config import DatabaseSettings, TokenSettings, Url


class OrderSettings(DatabaseSettings, TokenSettings):
    """All of them."""

    product_url: Url = Field("http://127.0.0.1:5003", description="product-service.")
    product_timeout_seconds: float = Field(1.0, gt=0, le=5, description="How long product-service may take to answer.")
    payment_url: Url = Field("http://127.0.0.1:5005", description="payment-service.")
    payment_timeout_seconds: float = Field(
        3.0, gt=0, le=5, description="How long payment-service may take; after that the client gets 202."
    )
