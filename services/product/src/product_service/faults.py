"""Faults of product-service; see `shop.faults`."""

import sys
from typing import Any

from product_service.domain import Catalogue as Plain
from product_service.domain import Product
from shop.faults import Faults

FLAGS = ("product-slow", "product-errors")
"""The flags that are evaluated here."""


class Catalogue(Plain):
    """A catalogue in which reading some products is slow or fails while a fault is on.

    Args:
        inner: The catalogue without faults.
        faults: The faults that are on.
    """

    def __init__(self, inner: Plain, faults: Faults) -> None:
        super().__init__(inner.search(text=None, tag=None, before_id=sys.maxsize, count=sys.maxsize))
        self._faults = faults

    def get(self, product_id: int) -> Product:
        """Return a product; see the base class."""
        product = super().get(product_id)
        about: dict[str, Any] = {"product_id": product_id, "tags": list(product.tags), "currency": product.currency}
        self._faults.wait("product-slow", **about)
        if self._faults.is_set("product-errors", **about):
            raise KeyError(product.sku)  # like a bug that affects only some products
        return product
