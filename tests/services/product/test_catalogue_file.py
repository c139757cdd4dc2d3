import json

import pytest

from product_service.app import create_app
from product_service.settings import ProductSettings

ENTRY = {
    "id": 7,
    "sku": "ABC-DEF-007",
    "name": "Thing",
    "description": "",
    "unit_price_minor": 1,
    "currency": "EUR",
    "tags": [],
}


@pytest.fixture
def app_of(tmp_path):
    def make(text):
        path = tmp_path / "catalogue.json"
        path.write_text(text)
        return create_app(ProductSettings(catalogue_file=path))

    return make


def test_a_catalogue_of_ones_own_takes_the_place_of_the_built_in_one(serve, app_of):
    client = serve(app_of(json.dumps([ENTRY])))
    assert client.get("/products/").json() == {"items": [ENTRY], "next_cursor": None}


def test_a_catalogue_may_be_empty(serve, app_of):
    assert serve(app_of("[]")).get("/products/").json() == {"items": [], "next_cursor": None}


def _with(**change):
    return json.dumps([{**ENTRY, **change}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("{}", "list"),
        (json.dumps([ENTRY, ENTRY]), "same id"),
        (json.dumps([ENTRY, {**ENTRY, "id": 8}]), "same stock-keeping code"),
        (_with(id=0), "id"),
        (_with(id=True), "id"),
        (_with(id=2**31), "id"),
        (_with(sku="mug"), "sku"),
        (_with(name=""), "name"),
        (_with(unit_price_minor=0), "unit_price_minor"),
        (_with(unit_price_minor=1.5), "unit_price_minor"),
        (_with(unit_price_minor=10**10), "unit_price_minor"),
        (_with(currency="euro"), "currency"),
        (_with(tags="kitchen"), "tags"),
        (_with(colour="red"), "colour"),
        (json.dumps([{key: value for key, value in ENTRY.items() if key != "sku"}]), "sku"),
    ],
)
def test_a_broken_catalogue_refuses_to_start_and_says_why(app_of, text, message):
    with pytest.raises(ValueError, match=message):
        app_of(text)


def test_a_missing_catalogue_refuses_to_start_and_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        create_app(ProductSettings(catalogue_file=tmp_path / "nowhere.json"))
