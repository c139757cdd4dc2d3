"""Tokens with which services call each other."""

import jwt
import pytest

from tests.services.auth.conftest import SECRET

ASKED = {"grant_type": "client_credentials", "audience": "payment-service"}
ORDER = ("order-service", SECRET)


def _ask(client, auth=ORDER, **members):
    return client.post("/internal/token", {**ASKED, **members}, auth=auth)


def test_a_service_gets_a_token_for_the_one_that_it_may_call(client, signer):
    answer = _ask(client)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
    token = answer.json()["access_token"]
    claims = jwt.decode(token, signer.key.public_key(), ["RS256"], audience="payment-service", issuer="auth-service")
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp"}
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("order-service", 3600)


@pytest.mark.parametrize("audience", ["user-service", "auth-service", "order-service", "shop", "", "payment-service "])
def test_it_gets_none_for_any_other(client, audience):
    answer = _ask(client, audience=audience)
    assert answer.status_code == 403
    assert "access_token" not in answer.text


@pytest.mark.parametrize(
    "auth",
    [None, ("order-service", "wrong"), ("order-service", ""), ("order-service", SECRET + "x"), ("", SECRET),
     ("ORDER-SERVICE", SECRET), ("payment-service", SECRET), ("user-service", SECRET), ("nobody", SECRET),
     ("../secrets/order-service", SECRET), ("order-service\x00", SECRET), ("order-sérvice".encode(), b"\xff")],
)  # fmt: skip
def test_who_does_not_prove_to_be_one_gets_none_and_does_not_learn_why(client, auth):
    answer = _ask(client, auth)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.json()["detail"] == "This needs the name of a service and its secret."


@pytest.mark.parametrize("value", ["Basic", "Basic !", "Basic Zm9v", "Digest a=b", "Bearer x", "basic", ""])
def test_what_is_no_basic_authorization_is_401(client, value):
    assert client.post("/internal/token", ASKED, headers={"Authorization": value}).status_code == 401


def test_a_users_token_gets_none(client, signer):
    assert client.post("/internal/token", ASKED, signer.token(role="admin")).status_code == 401


@pytest.mark.parametrize(
    ("members", "field"),
    [({"grant_type": "password"}, "grant_type"), ({"audience": 7}, "audience"), ({"scope": "all"}, "scope")],
)
def test_a_bad_body_names_the_field(client, members, field):
    answer = _ask(client, **members)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_services_token_is_no_users(client):
    token = _ask(client).json()["access_token"]
    assert client.get("/auth/validate", token).status_code == 401


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_secret_that_cannot_be_read_is_503_and_a_new_one_counts_at_once(client, tmp_path, content):
    file = tmp_path / "secrets" / "order-service"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert _ask(client).status_code == 503
    file.write_text("new\n")
    assert _ask(client).status_code == 401
    assert _ask(client, ("order-service", "new")).status_code == 200


def test_an_empty_secret_is_nobodys(client, tmp_path):
    (tmp_path / "secrets" / "order-service").write_text("\n")
    assert _ask(client, ("order-service", "")).status_code == 401


def test_it_is_no_route_of_the_published_document(client):
    assert "/internal" not in client.get("/auth/openapi.json").text
