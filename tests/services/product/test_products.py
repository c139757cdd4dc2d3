import pytest

from payment_service.settings import ProcessorSettings
from product_service.app import create_app
from product_service.settings import ProductSettings
from tests.fixtures.services import assert_is_a_service

FIELDS = {"id", "sku", "name", "description", "unit_price_minor", "currency", "tags"}


@pytest.fixture
def client(serve):
    return serve(create_app(ProductSettings()))


def _everything(client, **query):
    items, cursor = [], None
    while True:
        page = client.get("/products/", params={**query, **({"cursor": cursor} if cursor else {})}).json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def test_it_is_a_service(client):
    document = assert_is_a_service(client, "products")
    assert set(document["paths"]) == {"/products/", "/products/{product_id}"}
    assert "304" in document["paths"]["/products/"]["get"]["responses"]


def test_a_product_is_read_by_its_id(client):
    answer = client.get("/products/1")
    assert answer.status_code == 200
    assert set(answer.json()) == FIELDS
    assert (answer.json()["id"], answer.json()["sku"]) == (1, "KIT-MUG-001")


def test_nobody_has_to_log_in_to_look(client):
    assert client.get("/products/1", token="nonsense").status_code == 200


def test_an_unknown_product_is_404_and_named(client):
    answer = client.get("/products/9999")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:shop:problem:product-not-found"
    assert "9999" in answer.json()["detail"]


@pytest.mark.parametrize("product_id", ["0", "-1", "2147483648", "9" * 400, "one", "1.0", "1e0", "%00", "true"])
def test_what_is_no_product_id_is_404(client, product_id):
    assert client.get(f"/products/{product_id}").status_code == 404


def test_the_list_is_newest_first_and_whole(client):
    ids = [product["id"] for product in client.get("/products/?limit=100").json()["items"]]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) >= 20


@pytest.mark.parametrize("limit", [1, 7, 12, 100])
def test_pages_together_are_the_list(client, limit):
    whole = client.get("/products/?limit=100").json()
    assert whole["next_cursor"] is None
    assert _everything(client, limit=limit) == whole["items"]


def test_a_page_that_ends_the_list_has_no_next(client):
    count = len(client.get("/products/?limit=100").json()["items"])
    assert client.get(f"/products/?limit={count}").json()["next_cursor"] is None
    assert client.get(f"/products/?limit={count - 1}").json()["next_cursor"] is not None


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("mug", [1]),
        ("STONEWARE", [1]),
        ("dishwasher", [1]),
        ("kit-mug-001", [1]),
        ("coffee grinder", [3]),
        ("no such thing", []),
        ("%", []),
        ("_____", []),
        ("' OR 1=1", []),
    ],
)
def test_search_finds_text_in_name_description_and_code_whatever_the_case(client, text, ids):
    answer = client.get("/products/", params={"q": text}).json()
    assert [product["id"] for product in answer["items"]] == ids


def test_an_empty_search_finds_everything(client):
    assert client.get("/products/?q=").json() == client.get("/products/").json()


def test_a_tag_finds_what_has_it_page_by_page_and_with_text(client):
    found = _everything(client, tag="coffee", limit=1)
    assert len(found) >= 2
    assert all("coffee" in product["tags"] for product in found)
    assert [product["id"] for product in _everything(client, tag="coffee", q="grinder")] == [3]
    assert _everything(client, tag="coff") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("q=" + "x" * 65, "q"),
        ("q=%00", "q"),
        ("q=a&q=b", "q"),
        ("tag=" + "x" * 33, "tag"),
        ("tag=%0A", "tag"),
        ("price=1", "price"),
    ],
)
def test_a_bad_query_is_422_and_named(client, query, field):
    answer = client.get(f"/products/?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("query", ["q=%ff", "q=%f0%9f%98%80", "tag=%ed%a0%80"])
def test_odd_text_finds_nothing_and_breaks_nothing(client, query):
    assert client.get(f"/products/?{query}").json()["items"] == []


@pytest.mark.parametrize("path", ["/products/1", "/products/", "/products/?tag=coffee"])
def test_what_a_client_has_already_is_not_sent_again(client, path):
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    second = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["ETag"] == first.headers["ETag"]
    assert "traceresponse" in second.headers


def test_another_etag_gets_the_whole(client):
    etag = client.get("/products/2").headers["ETag"]
    assert client.get("/products/1", headers={"If-None-Match": etag}).status_code == 200


def test_an_error_has_no_etag(client):
    assert "ETag" not in client.get("/products/9999").headers


def test_the_catalogue_keeps_its_promises(client):
    products = client.get("/products/?limit=100").json()["items"]
    by_id = {product["id"]: product for product in products}
    limit = ProcessorSettings().payment_limit_minor
    assert limit == 100_000
    assert len(by_id) == len({product["sku"] for product in products}) == len(products) >= 20
    assert all(by_id[n]["unit_price_minor"] <= limit for n in range(1, 21))
    assert any(product["unit_price_minor"] > limit for product in products)
    assert {product["currency"] for product in products} == {"EUR", "CHF"}
    assert all(product["tags"] and product["name"] and product["description"] for product in products)
