"""product-service's composition root."""

from flask import Flask

import shop
from product_service import routes
from product_service.domain import ProductNotFound
from product_service.settings import ProductSettings
from product_service.store import read_catalogue
from servicekit.config import load
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.web.app import create_app as create_service
from servicekit.web.errors import ErrorTable, Problem
from servicekit.web.openapi import create_api, document_blueprint

SERVICE = "product-service"

ERRORS: ErrorTable = {ProductNotFound: Problem(404, "product-not-found", "No such product")}


def create_app(settings: ProductSettings | None = None) -> Flask:
    """Wire the service.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load(ProductSettings)
    api = create_api("product-service", "What there is to buy.")
    blueprint = routes.blueprint(api, read_catalogue(settings.catalogue_file))
    metrics = Metrics(enabled=measures())
    return create_service(
        SERVICE,
        settings,
        metrics,
        shop.telemetry(SERVICE, metrics),
        blueprints=[blueprint, document_blueprint(api, "products")],
        error_table=ERRORS,
    )
