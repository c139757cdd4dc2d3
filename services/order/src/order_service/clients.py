"""product-service and payment-service, as order-service sees them."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from order_service.domain import MAX_PRICE, ChargeRefused, Order, ProductNotFound, Refusal, Settlement, Status
from servicekit.calls.client import ServiceClient
from servicekit.web.errors import DependencyUnavailable
from servicekit.web.openapi import MAX_ID, Text


class _Agreed(BaseModel):
    """What an answer has to hold; whatever else it holds is not looked at."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Product(_Agreed):
    """What an order keeps of a product."""

    id: int
    sku: Text
    name: Text
    unit_price_minor: int = Field(ge=0, le=MAX_PRICE)
    currency: str = Field(pattern="^[A-Z]{3}$")


class _Payment(_Agreed):
    """What an order keeps of a payment."""

    id: int = Field(ge=1, le=MAX_ID)
    order_id: int
    amount_minor: int
    currency: str
    outcome: Literal["PAID", "DECLINED"]


class Products:
    """Knows products.

    Args:
        client: A client of product-service.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def get(self, product_id: int) -> Mapping[str, Any]:
        """Return what an order keeps of a product, as it is now.

        Raises:
            ProductNotFound: There is none with this id.
            DependencyUnavailable: product-service did not answer, or its answer is no product that can be sold.
        """
        reply = self._client.get("/products/{product_id}", product_id=product_id)
        if reply.status == HTTPStatus.NOT_FOUND:
            raise ProductNotFound(product_id)
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable("product-service")
        try:
            product = _Product.model_validate(reply.body)
        except ValidationError as error:
            raise DependencyUnavailable("product-service") from error
        if product.id != product_id:
            raise DependencyUnavailable("product-service")
        return product.model_dump()


class Payments:
    """Has orders paid.

    Args:
        client: A client of payment-service.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def charge(self, order: Order) -> Settlement:
        """Charge an order. Safe to repeat: the order's id is the idempotency key.

        Raises:
            DependencyUnavailable: No answer; the charge may have been made all the same.
            ChargeRefused: An answer that says neither paid nor declined, or is about another order or amount.
        """
        asked = {"order_id": order.id, "amount_minor": order.amount_minor, "currency": order.currency}
        reply = self._client.post(
            "/internal/charges",
            {**asked, "user_id": order.user_id},
            idempotency_key=order.payment_key,
            retry=True,
        )
        if reply.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise ChargeRefused(Refusal.REFUSED)
        try:
            payment = _Payment.model_validate(reply.body)
        except ValidationError:
            raise ChargeRefused(Refusal.NO_PAYMENT) from None
        if payment.model_dump(include=set(asked)) != asked:
            raise ChargeRefused(Refusal.NO_PAYMENT)
        return Settlement(Status(payment.outcome), payment.id)
