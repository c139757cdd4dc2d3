import base64
import json
import time

import jwt
import pytest
from structlog.testing import capture_logs
from werkzeug import Response

from tests.fixtures.services import Signer, assert_is_a_service

ADA = {"username": "ada", "password": "correct horse"}


def _token(client):
    return client.post("/auth/login", ADA).json()["token"]


def _part(token, index):
    part = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_it_is_a_service(client):
    document = assert_is_a_service(client, "auth")
    assert set(document["paths"]) == {"/auth/login", "/auth/validate", "/auth/.well-known/jwks.json"}
    assert "401" in document["paths"]["/auth/login"]["post"]["responses"]


def test_the_right_password_gets_a_token_that_no_cache_keeps(client):
    answer = client.post("/auth/login", ADA)
    assert answer.status_code == 200
    assert set(answer.json()) == {"token", "token_type", "expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.metric("logins_total", outcome="succeeded") == 1


def test_a_token_says_who_and_how_long_and_no_name(client):
    token = _token(client)
    claims = _part(token, 1)
    assert set(claims) == {"iss", "aud", "sub", "role", "iat", "exp"}
    assert (claims["iss"], claims["aud"], claims["sub"], claims["role"]) == ("auth-service", "shop", "7", "customer")
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 60
    assert set(_part(token, 0)) == {"alg", "typ", "kid"}
    assert _part(token, 0)["alg"] == "RS256"


def test_a_token_verifies_with_the_published_keys_alone(client):
    token = _token(client)
    keys = jwt.PyJWKSet.from_dict(client.get("/auth/.well-known/jwks.json").json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, ["RS256"], audience="shop", issuer="auth-service")["sub"] == "7"


@pytest.mark.parametrize("credentials", [{**ADA, "password": "wrong"}, {**ADA, "username": "nobody"}])
def test_wrong_credentials_are_401_without_saying_which(client, credentials):
    answer = client.post("/auth/login", credentials)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:shop:problem:bad-credentials"
    assert answer.json()["detail"] == "Username or password is wrong."
    assert client.metric("logins_total", outcome="rejected") == 1


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_an_answer_that_decides_nothing_is_503(client, users, status):
    users.clear()
    users.expect_request("/internal/credentials").respond_with_handler(lambda _: Response(status=status))
    answer = client.post("/auth/login", ADA)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "user-service" in answer.json()["detail"]
    assert client.metric("logins_total", outcome="unavailable") == 1


@pytest.mark.parametrize(
    "body",
    ["", "{}", "[]", "7", "null", '{"role": "admin"}', '{"user_id": 7}', '{"user_id": "7", "role": "customer"}',
     '{"user_id": true, "role": "customer"}', '{"user_id": 0, "role": "customer"}', '{"user_id": 7, "role": "root"}',
     '{"user_id": 7, "role": ["admin"]}', '{"user_id": 1e30, "role": "admin"}'],
)  # fmt: skip
def test_an_answer_that_names_no_account_is_503_and_no_token(client, users, body):
    users.clear()
    users.expect_request("/internal/credentials").respond_with_data(body, content_type="application/json")
    answer = client.post("/auth/login", ADA)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "user-service" in answer.json()["detail"]
    assert "token" not in answer.json()


def test_it_says_who_it_is_when_it_asks_for_a_password(client, users, signer):
    client.post("/auth/login", ADA)
    ((request, _),) = users.log
    sent = request.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(sent, signer.key.public_key(), ["RS256"], audience="user-service", issuer="auth-service")
    assert claims["sub"] == "auth-service"
    assert claims["exp"] - claims["iat"] == 60


def test_without_user_service_logging_in_is_503_and_tokens_stay_valid(client, users):
    token = _token(client)
    users.stop()
    assert client.post("/auth/login", ADA).status_code == 503
    assert client.get("/auth/validate", token).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_password_is_checked_once(client, users):
    client.post("/auth/login", {**ADA, "password": "wrong"})
    assert len(users.log) == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"{", 400, "body"),
        (b"[]", 422, "body"),
        (b"{}", 422, "username"),
        (b'{"username": "ada"}', 422, "password"),
        (b'{"username": "", "password": "x"}', 422, "username"),
        (b'{"username": "ada", "password": ""}', 422, "password"),
        (b'{"username": "' + b"a" * 65 + b'", "password": "x"}', 422, "username"),
        (b'{"username": "ada", "password": "' + b"x" * 129 + b'"}', 422, "password"),
        (b'{"username": "a\\u0000", "password": "x"}', 422, "username"),
        (b'{"username": true, "password": "x"}', 422, "username"),
        (b'{"username": "ada", "password": 7}', 422, "password"),
        (b'{"username": "ada", "password": "x", "role": "admin"}', 422, "role"),
    ],
)
def test_a_bad_body_names_the_field_and_asks_nobody(client, users, body, status, field):
    answer = client.post("/auth/login", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert field in answer.json()["detail"]
    assert users.log == []


def test_no_password_no_name_and_no_token_is_logged_or_counted(client):
    with capture_logs() as events:
        token = _token(client)
        client.post("/auth/login", {"username": "canary-name", "password": "canary-password"})
        client.post("/auth/login", {"username": "canary" * 20, "password": "canary-password"})
        client.get("/auth/validate", token)
        client.get("/auth/validate?token=canary", token + "canary")
    assert {"login.succeeded", "login.rejected"} < {event["event"] for event in events}
    shown = str(events) + client.get("/metrics").text
    assert "canary" not in shown
    assert token.split(".")[2] not in shown
    assert "ada" not in str(events)


def test_outcomes_are_there_at_0_from_the_start(client):
    text = client.get("/metrics").text
    assert all(
        f'logins_total{{outcome="{outcome}"}} 0.0' in text for outcome in ("succeeded", "rejected", "unavailable")
    )


def test_a_token_is_told_what_it_says(client):
    token = _token(client)
    answer = client.get("/auth/validate", token)
    expiry = _part(token, 1)["exp"]
    assert answer.json() == {"valid": True, "user_id": 7, "role": "customer", "expires_at": expiry}


@pytest.mark.parametrize("token", [None, "garbage", "a.b.c"])
def test_what_is_no_token_is_401(client, token):
    answer = client.get("/auth/validate", token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_of_other_keys_is_401(client, signer):
    assert client.get("/auth/validate", signer.token(kid="unknown")).status_code == 401
    key = client.get("/auth/.well-known/jwks.json").json()["keys"][0]["kid"]
    assert client.get("/auth/validate", signer.token(kid=key)).status_code == 200
    assert client.get("/auth/validate", signer.token(kid=key, key=Signer().key)).status_code == 401


def test_only_public_members_of_keys_are_published(client):
    answer = client.get("/auth/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=10"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")


def test_replicas_on_one_folder_take_each_others_tokens(start):
    first, second = start(), start()
    assert second.get("/auth/validate", _token(first)).status_code == 200
    assert first.get("/auth/.well-known/jwks.json").json() == second.get("/auth/.well-known/jwks.json").json()


def test_a_restart_logs_nobody_out(start):
    token = _token(start())
    assert start().get("/auth/validate", token).status_code == 200
