import pytest

from servicekit.web.openapi import MAX_ID
from servicekit.web.paging import cut_page
from tests.servicekit.sample import sample_app


@pytest.fixture
def client(serve):
    return serve(sample_app())


@pytest.mark.parametrize("last_id", [1, 7, 1000, MAX_ID])
def test_a_cursor_leads_to_what_comes_after_its_item(client, last_id):
    _, cursor = cut_page([last_id, last_id - 1], 1, lambda row: row)
    assert client.get("/notes/", params={"cursor": cursor}).json()["before_id"] == last_id


def test_the_first_page_has_no_cursor_and_may_hold_every_id(client):
    assert client.get("/notes/").json() == {"limit": 50, "before_id": MAX_ID + 1}


@pytest.mark.parametrize("limit", [1, 50, 100])
def test_a_page_may_hold_1_to_100(client, limit):
    assert client.get(f"/notes/?limit={limit}").json()["limit"] == limit


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "\0",
        "ä",
        "0",
        "-1",
        "1.5",
        "1.0",
        "+1",
        "1_0",
        " 1",
        "1e3",
        "NaN",
        "2147483648",
        "9" * 5000,
        "before:7",
        "null",
    ],
)
def test_a_bad_cursor_is_422_and_named(client, cursor):
    response = client.get("/notes/", params={"cursor": cursor})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["cursor"]


@pytest.mark.parametrize(
    ("rows", "limit", "page", "more"),
    [([], 2, [], False), ([9], 2, [9], False), ([9, 8], 2, [9, 8], False), ([9, 8, 7], 2, [9, 8], True)],
)
def test_there_is_a_next_page_only_if_there_is_more(rows, limit, page, more):
    found, cursor = cut_page(rows, limit, lambda row: row)
    assert found == page
    assert (cursor is not None) == more
