"""product-service's settings."""

from pathlib import Path

from pydantic import Field

from servicekit.config import ServiceSettings
from servicekit.flags import FlagSettings


class ProductSettings(ServiceSettings, FlagSettings):
    """All settings of product-service."""

    catalogue_file: Path | None = Field(None, description="A catalogue of your own instead of the built-in one.")
