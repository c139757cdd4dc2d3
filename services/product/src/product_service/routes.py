"""product-service's routes."""

from typing import Annotated

from flask import Blueprint, Response, request
from pydantic import Field
from spectree import SpecTree

from product_service.domain import Catalogue, Product
from servicekit.web.openapi import MAX_ID, Answer, Text, answers
from servicekit.web.paging import PageQuery, cut_page


class ProductQuery(PageQuery):
    """The query string of a search."""

    q: Annotated[Text, Field(max_length=64)] | None = Field(
        None, description="Text in name, description or stock-keeping code."
    )
    tag: Annotated[Text, Field(max_length=32)] | None = Field(None, description="A tag.")


class ProductAnswer(Answer):
    """A product."""

    id: int
    sku: str = Field(description="Stock-keeping code.")
    name: str
    description: str
    unit_price_minor: int = Field(description="In the currency's minor unit.")
    currency: str = Field(description="ISO 4217.")
    tags: list[str]


class ProductPage(Answer):
    """A page of products, newest first."""

    items: list[ProductAnswer]
    next_cursor: str | None


def blueprint(api: SpecTree, catalogue: Catalogue) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("products", __name__)

    @routes.get("/products/")
    @api.validate(resp=answers({200: ProductPage, 304: None}, 422), tags=["products"])
    def list_products(query: ProductQuery) -> ProductPage:
        """List or search the products."""
        found = catalogue.search(text=query.q, tag=query.tag, before_id=query.before_id, count=query.limit + 1)
        page, next_cursor = cut_page(found, query.limit, lambda product: product.id)
        return ProductPage(items=[_answer(product) for product in page], next_cursor=next_cursor)

    @routes.get(f"/products/<int(min=1, max={MAX_ID}):product_id>")
    @api.validate(resp=answers({200: ProductAnswer, 304: None}, 404), tags=["products"])
    def read_product(product_id: int) -> ProductAnswer:
        """Read a product."""
        return _answer(catalogue.get(product_id))

    @routes.after_request
    def revalidate(response: Response) -> Response:
        """Add an ETag, so that clients can revalidate a cached answer (RFC 9110, section 13)."""
        if response.status_code == 200:  # noqa: PLR2004
            response.add_etag()
            response.headers["Cache-Control"] = "no-cache"
            if "HTTP_IF_NONE_MATCH" in request.environ:
                response.make_conditional(request)
        return response

    return routes


def _answer(product: Product) -> ProductAnswer:
    return ProductAnswer(
        id=product.id,
        sku=product.sku,
        name=product.name,
        description=product.description,
        unit_price_minor=product.unit_price_minor,
        currency=product.currency,
        tags=list(product.tags),
    )
