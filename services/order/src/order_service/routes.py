"""order-service's routes."""

from http import HTTPStatus
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field, WithJsonSchema
from spectree import SpecTree

from order_service.domain import Order, Status
from order_service.ordering import Ordering
from servicekit.identity.auth import Authenticator, principal
from servicekit.web.errors import problem_response
from servicekit.web.openapi import BEARER, MAX_ID, Answer, Body, Headers, Moment, answers
from servicekit.web.paging import PageQuery, cut_page

MAX_QUANTITY = 100


class OrderRequest(Body):
    """A new order."""

    product_id: int = Field(ge=1, le=MAX_ID, examples=[1])
    quantity: int = Field(1, ge=1, le=MAX_QUANTITY)


class OrderHeaders(Headers):
    """The headers of a new order."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x2b\x2d-\x7e]+$",  # no comma, because repeated headers arrive joined by one
        description="The same key and body give the same order, however often they are sent. One key, without a comma.",
    )


BoughtProduct = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": "object",
            "description": "The product as it was when it was bought.",
            "properties": {
                "id": {"type": "integer"},
                "sku": {"type": "string"},
                "name": {"type": "string"},
                "unit_price_minor": {"type": "integer"},
                "currency": {"type": "string"},
            },
        }
    ),
]
"""Not validated in answers: a row that was inserted by hand must not break the whole list."""


class OrderAnswer(Answer):
    """An order."""

    id: int
    status: str = Field(description="PENDING, PAID or DECLINED.")
    product: BoughtProduct
    quantity: int
    payment_id: int | None = Field(description="What settled it: GET /payments/{id}.")
    created_at: Moment | None


class OrderPage(Answer):
    """A page of orders, newest first."""

    items: list[OrderAnswer]
    next_cursor: str | None


def blueprint(api: SpecTree, ordering: Ordering, auth: Authenticator) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("orders", __name__)

    @routes.post("/orders/")
    @auth.required
    @api.validate(
        resp=answers({201: OrderAnswer, 200: OrderAnswer, 202: OrderAnswer}, 401, 402, 404, 415, 422),
        security=BEARER,
        tags=["orders"],
    )
    def place_order(json: OrderRequest, headers: OrderHeaders) -> Any:
        """Place an order: 201 paid, 202 payment pending, 402 declined, 200 placed before with this key."""
        order, is_new = ordering.place(principal().user_id, json.product_id, json.quantity, headers.idempotency_key)
        location = {"Location": f"/orders/{order.id}"}
        if order.status == Status.DECLINED:
            return _declined(order, location)
        if order.status == Status.PENDING:
            return _answer(order), HTTPStatus.ACCEPTED.value, location
        return _answer(order), (HTTPStatus.CREATED if is_new else HTTPStatus.OK).value, location

    @routes.get("/orders/")
    @auth.required
    @api.validate(resp=answers({200: OrderPage}, 401, 422), security=BEARER, tags=["orders"])
    def list_orders(query: PageQuery) -> OrderPage:
        """List your own orders; admins see all orders."""
        found = ordering.newest(
            query.before_id, query.limit + 1, user_id=principal().user_id, is_admin=principal().is_admin
        )
        page, next_cursor = cut_page(found, query.limit, lambda order: order.id)
        return OrderPage(items=[_answer(order) for order in page], next_cursor=next_cursor)

    @routes.get(f"/orders/<int(min=1, max={MAX_ID}):order_id>")
    @auth.required
    @api.validate(resp=answers({200: OrderAnswer}, 401, 404), security=BEARER, tags=["orders"])
    def read_order(order_id: int) -> OrderAnswer:
        """Read one of your own orders; admins can read any order."""
        return _answer(ordering.read(order_id, user_id=principal().user_id, is_admin=principal().is_admin))

    return routes


def _answer(order: Order) -> OrderAnswer:
    return OrderAnswer(
        id=order.id,
        status=order.status,
        product=order.product,
        quantity=order.quantity,
        payment_id=order.payment_id,
        created_at=order.created_at,
    )


def _declined(order: Order, location: dict[str, str]) -> Response:
    return problem_response(
        HTTPStatus.PAYMENT_REQUIRED,
        "payment-declined",
        "Payment declined",
        f"The payment was declined. Order {order.id} is kept as DECLINED.",
        headers=location,
        extensions={"order": _answer(order).model_dump(mode="json")},
    )
