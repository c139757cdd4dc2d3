"""product-service's composition root."""

from flask import Flask

from product_service import faults, routes
from product_service.domain import ProductNotFound
from product_service.settings import ProductSettings
from product_service.store import read_catalogue
from servicekit.config import load
from servicekit.service import Service
from servicekit.web.errors import ErrorTable, Problem
from shop import SHOP
from shop.faults import Faults

ERRORS: ErrorTable = {ProductNotFound: Problem(404, "product-not-found", "No such product")}


def create_app(settings: ProductSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(ProductSettings)
    kit = Service("product-service", settings, SHOP)
    set_faults = Faults(kit, settings, *faults.FLAGS)
    catalogue = faults.Catalogue(read_catalogue(settings.catalogue_file), set_faults)
    api = kit.api("What there is to buy.")
    blueprint = routes.blueprint(api, catalogue)
    return set_faults.spoil(kit.app(api, blueprint, prefix="products", errors=ERRORS))
