"""Reads the catalogue's file."""

from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from product_service.domain import Catalogue, Product
from servicekit.web.openapi import MAX_ID, Body, Text


class _Entry(Body):
    id: int = Field(ge=1, le=MAX_ID)
    sku: str = Field(pattern=r"^[A-Z]{3}-[A-Z]{3}-\d{3}$")
    name: Annotated[Text, Field(min_length=1, max_length=80)]
    description: str = Field(max_length=300)
    unit_price_minor: int = Field(ge=1, le=10**9)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    tags: list[str] = Field(max_length=8)


def read_catalogue(path: Path | None = None) -> Catalogue:
    """Read the catalogue. It is read once, because it changes only with a release.

    Args:
        path: A JSON file like `catalogue.json` beside this module, which is the default.

    Raises:
        ValueError: The file is not a catalogue.
    """
    source = path or resources.files(__package__).joinpath("catalogue.json")
    entries = TypeAdapter(list[_Entry]).validate_json(source.read_bytes())
    return Catalogue(Product(**{**entry.model_dump(), "tags": tuple(entry.tags)}) for entry in entries)
