"""Products and the catalogue."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class ProductNotFound(Exception):  # noqa: N818  # named after what happened
    """There is no such product."""

    def __init__(self, product_id: int) -> None:
        super().__init__(f"There is no product {product_id}.")


@dataclass(frozen=True)
class Product:
    """A product. The price is an integer in the currency's minor unit, so that rounding loses no cent."""

    id: int
    sku: str
    name: str
    description: str
    unit_price_minor: int
    currency: str
    tags: tuple[str, ...]


class Catalogue:
    """All products, newest first.

    Args:
        products: The products in any order; ids and stock-keeping codes must be unique.

    Raises:
        ValueError: An id or a stock-keeping code is not unique.
    """

    def __init__(self, products: Iterable[Product]) -> None:
        self._newest_first = sorted(products, key=lambda product: -product.id)
        self._by_id = {product.id: product for product in self._newest_first}
        if len(self._by_id) != len(self._newest_first):
            raise ValueError("two products have the same id")
        if len({product.sku for product in self._newest_first}) != len(self._newest_first):
            raise ValueError("two products have the same stock-keeping code")
        self._text = {
            product.id: f"{product.name}\n{product.description}\n{product.sku}".casefold()
            for product in self._newest_first
        }

    def get(self, product_id: int) -> Product:
        """Return a product.

        Raises:
            ProductNotFound: There is none with this id.
        """
        product = self._by_id.get(product_id)
        if product is None:
            raise ProductNotFound(product_id)
        return product

    def search(self, *, text: str | None, tag: str | None, before_id: int, count: int) -> Sequence[Product]:
        """Return up to `count` products with smaller ids than `before_id`, newest first.

        Args:
            text: A text in the name, description or stock-keeping code, ignoring case; None for all products.
            tag: A tag of the products; None for all products.
            before_id: Return only products with a smaller id.
            count: The most products to return.
        """
        wanted = (text or "").casefold()
        found = (
            product
            for product in self._newest_first
            if product.id < before_id and wanted in self._text[product.id] and (tag is None or tag in product.tags)
        )
        return [product for product, _ in zip(found, range(count), strict=False)]
