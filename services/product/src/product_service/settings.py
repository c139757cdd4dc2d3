"""product-service's settings."""

from pathlib import Path

from pydantic import Field

from servicekit.config import ServiceSettings


class ProductSettings(ServiceSettings):
    """All of them."""

    catalogue_file: Path | None = Field(None, description="A catalogue of your own instead of the built-in one.")
