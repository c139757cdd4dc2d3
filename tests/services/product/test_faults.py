import pytest

from product_service.app import create_app
from product_service.settings import ProductSettings
from tests.fixtures.services import quickest


@pytest.fixture
def client(serve, fault):
    return serve(create_app(ProductSettings(flags_file=fault.path)))


def test_only_product_7_is_slow(client, fault):
    fault("product-slow", "weak")
    assert client.get("/products/7").elapsed.total_seconds() >= 0.4
    assert quickest(lambda: client.get("/products/6")) < 0.4
    fault("product-slow", "off")


def test_only_products_with_the_tag_fail(client, fault):
    fault("product-errors")
    tagged = {
        product["id"] for product in client.get("/products/", params={"tag": "coffee", "limit": 100}).json()["items"]
    }
    assert tagged == {2, 3, 24}
    assert {n for n in range(1, 26) if client.get(f"/products/{n}").status_code == 500} == tagged
    assert client.get("/products/99").status_code == 404


def test_one_product_is_not_in_euros(client):
    assert [client.get(f"/products/{n}").json()["currency"] for n in (24, 25)] == ["EUR", "CHF"]
