"""The clients of product-service and payment-service."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from order_service.domain import MAX_PRICE, ChargeRefused, Order, ProductNotFound, Refusal, Settlement, Status
from servicekit.calls.client import Reply, ServiceClient
from servicekit.web.errors import DependencyUnavailable
from servicekit.web.openapi import MAX_ID, Text


class _Agreed(BaseModel):
    """The fields that an answer must have; others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Product(_Agreed):
    """The fields of a product that an order stores."""

    id: int
    sku: Text
    name: Text
    unit_price_minor: int = Field(ge=0, le=MAX_PRICE)
    currency: str = Field(pattern="^[A-Z]{3}$")


class _Payment(_Agreed):
    """The fields of a payment that an order needs."""

    id: int = Field(ge=1, le=MAX_ID)
    order_id: int
    amount_minor: int
    currency: str
    outcome: Literal["PAID", "DECLINED"]


class Products:
    """Reads products.

    Args:
        client: A client of product-service.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def get(self, product_id: int) -> Mapping[str, Any]:
        """Return the fields of a product that an order stores, as they are now.

        Raises:
            ProductNotFound: There is no product with this id.
            DependencyUnavailable: product-service did not answer, or its answer is not a product that can be sold.
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


class Posts(Protocol):
    """Sends a request with a body; see `ServiceClient`."""

    def post(
        self, route: str, body: Mapping[str, Any], *, idempotency_key: str | None = None, retry: bool = False
    ) -> Reply:
        """Send it, and return the answer."""


class Payments:
    """Charges orders.

    Args:
        client: A client of payment-service.
    """

    def __init__(self, client: Posts) -> None:
        self._client = client

    def charge(self, order: Order) -> Settlement:
        """Charge an order. It is safe to repeat, because the order's id is the idempotency key.

        Raises:
            DependencyUnavailable: No answer; the charge may have been made all the same.
            ChargeRefused: The answer is neither PAID nor DECLINED, or is about another order or amount.
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
