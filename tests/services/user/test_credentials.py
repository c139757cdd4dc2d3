import threading

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from servicekit.errors import DependencyUnavailable
from user_service import passwords as passwords_module
from user_service.passwords import Passwords


def _check(client, username="ada", password="correct horse"):
    return client.post("/internal/credentials", {"username": username, "password": password})


@pytest.mark.parametrize("username", ["ada", "ADA", "Ada"])
def test_the_right_password_says_whose_it_is(client, register, username):
    user = register("ada").json()
    answer = _check(client, username)
    assert answer.status_code == 200
    assert answer.json() == {"user_id": user["id"], "role": "customer"}


def test_a_wrong_password_and_an_unknown_name_look_the_same(client, register):
    register("ada")
    with capture_logs() as events:
        wrong = _check(client, password="canary-wrong horse")
        unknown = _check(client, username="canary-nobody")
    assert wrong.status_code == unknown.status_code == 401
    assert {**wrong.json(), "trace_id": ""} == {**unknown.json(), "trace_id": ""}
    assert "canary" not in str(events)


def test_an_unknown_name_costs_a_check_too(client, register, monkeypatch):
    """Otherwise the time of an answer tells which names exist."""
    register("ada")
    checked = []
    verify = PasswordHasher.verify
    monkeypatch.setattr(PasswordHasher, "verify", lambda self, *given: checked.append(given) or verify(self, *given))
    _check(client, password="wrong horse")
    _check(client, username="nobody")
    assert [password for _, password in checked] == ["wrong horse", "correct horse"]
    assert all(password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$") for password_hash, _ in checked)


def test_nobodys_password_lets_nobody_in(client):
    assert _check(client, username="nobody", password="nobody's password").status_code == 401


def test_a_hash_that_is_none_lets_nobody_in(client, add_users):
    add_users(1)
    assert _check(client, username="user1", password="-").status_code == 401


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
def test_bad_credentials_are_422_and_the_field_is_named(client, members, field):
    answer = client.post("/internal/credentials", {"username": "ada", "password": "correct horse", **members})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_sql_is_text(client, register):
    register("ada")
    assert _check(client, username="' OR ''='").status_code == 401
    assert _check(client, username="%").status_code == 401


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
