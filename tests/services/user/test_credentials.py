import threading
import unicodedata

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from servicekit.web.errors import DependencyUnavailable
from tests.fixtures.services import Signer
from user_service import passwords as passwords_module
from user_service.passwords import Passwords


@pytest.mark.parametrize("username", ["ada", "ADA", "Ada"])
def test_the_right_password_says_whose_it_is(check, register, username):
    user = register("ada").json()
    answer = check(username)
    assert answer.status_code == 200
    assert answer.json() == {"user_id": user["id"], "role": "customer"}


def test_a_wrong_password_and_an_unknown_name_look_the_same(check, register):
    register("ada")
    with capture_logs() as events:
        wrong = check(password="canary-wrong horse")
        unknown = check(username="canary-nobody")
    assert wrong.status_code == unknown.status_code == 401
    assert {**wrong.json(), "trace_id": ""} == {**unknown.json(), "trace_id": ""}
    assert "canary" not in str(events)


def test_an_unknown_name_costs_a_check_too(check, register, monkeypatch):
    """Otherwise the time of an answer tells which names exist."""
    register("ada")
    checked = []
    verify = PasswordHasher.verify
    monkeypatch.setattr(PasswordHasher, "verify", lambda self, *given: checked.append(given) or verify(self, *given))
    check(password="wrong horse")
    check(username="nobody")
    assert [password for _, password in checked] == ["wrong horse", "correct horse"]
    assert all(password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$") for password_hash, _ in checked)


def test_nobodys_password_lets_nobody_in(check):
    assert check(username="nobody", password="nobody's password").status_code == 401


def test_a_hash_that_is_none_lets_nobody_in(check, add_users):
    add_users(1)
    assert check(username="user1", password="-").status_code == 401


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"username": 7}, "username"),
        ({"username": "a\0"}, "username"),
        ({"username": "a" * 65}, "username"),
        ({"password": "x" * 129}, "password"),
        ({"password": None}, "password"),
        ({"role": "admin"}, "role"),
    ],
)
def test_bad_credentials_are_422_and_the_field_is_named(check, members, field):
    answer = check(**members)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_sql_is_text(check, register):
    register("ada")
    assert check(username="' OR ''='").status_code == 401
    assert check(username="%").status_code == 401


def test_more_checks_than_a_replica_takes_at_once_wait_and_then_give_up(monkeypatch):
    monkeypatch.setattr(passwords_module, "_AT_ONCE", 1)
    monkeypatch.setattr(passwords_module, "_WAIT_SECONDS", 0.05)
    passwords = Passwords()
    busy, release = threading.Event(), threading.Event()
    monkeypatch.setattr(PasswordHasher, "verify", lambda *_: busy.set() or release.wait(5))
    holder = threading.Thread(target=passwords.matches, args=("hash", "password"))
    holder.start()
    busy.wait(5)
    with pytest.raises(DependencyUnavailable, match="user-service"):
        passwords.matches("hash", "password")
    assert passwords.hash("password")  # registering waits for other registrations only, and so the other way round
    release.set()
    holder.join()
    assert passwords.hash("password")


REFUSED = {
    "nothing": (401, lambda _: None),
    "garbage": (401, lambda _: "garbage"),
    "a customer's token": (401, lambda s: s.token()),
    "an admin's token": (401, lambda s: s.token(role="admin")),
    "a token for another service": (401, lambda s: s.service_token("auth-service", "payment-service")),
    "one that has expired": (401, lambda s: s.service_token("auth-service", "user-service", exp=1_700_000_000)),
    "one of another key": (401, lambda s: s.service_token("auth-service", "user-service", key=Signer().key)),
    "one of another service": (403, lambda s: s.service_token("order-service", "user-service")),
    "a user who is called so": (401, lambda s: s.token(user_id="auth-service")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nobody_but_auth_service_has_a_password_checked(client, register, signer, kind):
    register("ada")
    status, token = REFUSED[kind]
    answer = client.post("/internal/credentials", {"username": "ada", "password": "correct horse"}, token(signer))
    assert answer.status_code == status
    assert "user_id" not in answer.text


def test_a_services_token_is_no_users(client, signer):
    token = signer.service_token("auth-service", "user-service")
    assert [client.get(path, token).status_code for path in ("/users/me", "/users/", "/users/1")] == [401] * 3


@pytest.mark.parametrize("registered", ["NFC", "NFD"])
def test_a_password_is_the_same_in_every_spelling(register, check, registered):
    password = "mañana-pässwörd"
    assert register("ada", unicodedata.normalize(registered, password)).status_code == 201
    assert [check("ada", unicodedata.normalize(form, password)).status_code for form in ("NFC", "NFD")] == [200, 200]
    assert check("ada", "manana-password").status_code == 401


@pytest.mark.parametrize("hashed", ["NFC", "NFD"])
def test_a_password_that_was_hashed_as_it_was_typed_still_fits(register, check, database, hashed):
    password = "mañana-pässwörd"
    register("ada")
    old = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1).hash(unicodedata.normalize(hashed, password))
    database.run("UPDATE users.users SET password_hash = %s", old)
    assert [check("ada", unicodedata.normalize(form, password)).status_code for form in ("NFC", "NFD")] == [200, 200]
