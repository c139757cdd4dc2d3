import pytest

from tests.fixtures.services import assert_is_a_service


def test_it_is_a_service(client):
    document = assert_is_a_service(client, "users")
    assert set(document["paths"]) == {"/users/", "/users/me", "/users/{user_id}"}


@pytest.mark.parametrize("path", ["/users/", "/users/me", "/users/1"])
@pytest.mark.parametrize("token", [None, "garbage"])
def test_without_a_token_nothing_is_read(client, path, token):
    answer = client.get(path, token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_i_read_myself(client, register, signer):
    ada = register().json()
    assert client.get("/users/me", signer.token(ada["id"])).json() == ada
    assert client.get(f"/users/{ada['id']}", signer.token(ada["id"])).json() == ada


def test_somebody_else_looks_like_nobody(client, add_users, signer):
    first, second = add_users(2)
    others = client.get(f"/users/{second}", signer.token(first))
    none = client.get("/users/99999", signer.token(first))
    assert others.status_code == none.status_code == 404
    assert others.json()["type"] == none.json()["type"] == "urn:shop:problem:user-not-found"
    assert others.json()["detail"] == none.json()["detail"].replace("99999", str(second))


def test_an_admin_reads_anybody_and_learns_who_is_nobody(client, add_users, signer):
    (somebody,) = add_users(1)
    admin = signer.token(99, "admin")
    assert client.get(f"/users/{somebody}", admin).json()["id"] == somebody
    assert client.get("/users/99999", admin).status_code == 404
    assert client.get("/users/me", admin).status_code == 404  # a token outlives its user


@pytest.mark.parametrize("user_id", ["0", "-1", "2147483648", "ME", "me/", "%00"])
def test_what_is_no_user_id_is_404(client, signer, user_id):
    assert client.get(f"/users/{user_id}", signer.token(1, "admin")).status_code == 404


@pytest.mark.parametrize("role", ["customer", "Admin", "root", ""])
def test_the_list_is_for_admins(client, signer, role):
    answer = client.get("/users/", signer.token(1, role))
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:shop:problem:forbidden"


def test_the_list_is_newest_first_and_its_pages_are_the_whole(client, add_users, signer):
    ids = add_users(7)
    admin = signer.token(1, "admin")
    found, query = [], "limit=3"
    while query:
        page = client.get(f"/users/?{query}", admin).json()
        assert len(page["items"]) <= 3
        found += [user["id"] for user in page["items"]]
        query = page["next_cursor"] and f"limit=3&cursor={page['next_cursor']}"
    assert found == ids[::-1]


def test_who_comes_in_while_pages_are_read_shifts_none(client, add_users, signer):
    ids = add_users(4)
    admin = signer.token(1, "admin")
    first = client.get("/users/?limit=2", admin).json()
    client.post("/users/", {"username": "latecomer", "password": "correct horse"})
    second = client.get(f"/users/?limit=2&cursor={first['next_cursor']}", admin).json()
    assert [user["id"] for user in first["items"] + second["items"]] == ids[::-1]


def test_a_list_shows_no_hash(client, register, signer):
    register()
    answer = client.get("/users/", signer.token(1, "admin"))
    assert set(answer.json()["items"][0]) == {"id", "username", "role", "created_at"}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=x", "role=admin"])
def test_a_bad_query_is_422(client, signer, query):
    assert client.get(f"/users/?{query}", signer.token(1, "admin")).status_code == 422
