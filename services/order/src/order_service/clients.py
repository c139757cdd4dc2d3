"""product-service and payment-service, as order-service sees them."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from order_service.domain import ChargeRefused, Order, ProductNotFound, Refusal, Settlement, Status
from servicekit.errors import DependencyUnavailable
from servicekit.http import ServiceClient

_KEPT = ("id", "sku", "name", "unit_price_minor", "currency")


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
            DependencyUnavailable: product-service did not answer.
        """
        reply = self._client.get("/products/{product_id}", product_id=product_id)
        if reply.status == HTTPStatus.NOT_FOUND:
            raise ProductNotFound(product_id)
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable("product-service")
        return {name: reply.body[name] for name in _KEPT}


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
            ChargeRefused: An answer that says neither paid nor declined.
        """
        reply = self._client.post(
            "/internal/charges",
            {
                "order_id": order.id,
                "user_id": order.user_id,
                "amount_minor": order.amount_minor,
                "currency": order.currency,
            },
            idempotency_key=order.payment_key,
            retry=True,
        )
        if reply.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise ChargeRefused(Refusal.REFUSED)
        try:
            return Settlement(Status(reply.body["outcome"]), int(reply.body["id"]))
        except (KeyError, TypeError, ValueError):
            raise ChargeRefused(Refusal.NO_PAYMENT) from None
