import concurrent.futures
import json

import pytest
from structlog.testing import capture_logs

ROWS = "SELECT username, role, password_hash FROM users.users"


def test_a_new_user_is_a_customer_with_a_place(client, register, signer):
    answer = register("Ada.Lovelace-1815")
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"id", "username", "role", "created_at"}
    assert (body["username"], body["role"]) == ("Ada.Lovelace-1815", "customer")
    assert answer.headers["Location"] == f"/users/{body['id']}"
    assert client.get(answer.headers["Location"], signer.token(body["id"])).json() == body
    assert client.metric("users_registered_total") == 1


def test_the_password_is_kept_as_argon2id_and_shown_nowhere(register, database):
    with capture_logs() as events:
        answer = register(password="canary horse")
    ((_, _, password_hash),) = database.run(ROWS)
    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    shown = answer.text + str(events) + str(answer.headers)
    assert "canary" not in shown
    assert "argon2" not in shown
    registered = next(event for event in events if event["event"] == "user.registered")
    assert registered["user_id"] == answer.json()["id"]
    assert "ada" not in str(events)  # a name is personal


def test_two_with_one_password_have_different_hashes(register, database):
    register("ada")
    register("bob")
    assert len({row[2] for row in database.run(ROWS)}) == 2


@pytest.mark.parametrize("again", ["ada", "ADA", "aDa"])
def test_a_name_is_taken_in_whatever_case(register, database, again):
    register("ada")
    answer = register(again, "another password")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:shop:problem:username-taken"
    assert "username" in answer.json()["detail"]
    assert len(database.run(ROWS)) == 1


def test_20_at_once_with_one_name_are_one_user(register, database):
    names = ["ada", "ADA", "Ada", "aDA"] * 5
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(register, names))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 503}  # 503: on a busy machine a password may wait too long for its turn
    assert len(database.run(ROWS)) == 1


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "ab"}, "username"),
        ({"username": "a" * 33}, "username"),
        ({"username": "-ada"}, "username"),
        ({"username": "ada lovelace"}, "username"),
        ({"username": "ada\n"}, "username"),
        ({"username": "ada\0"}, "username"),
        ({"username": "ädä"}, "username"),
        ({"username": "ada@example.org"}, "username"),
        ({"username": 12345}, "username"),
        ({"username": None}, "username"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"password": "with\0nul in it"}, "password"),
        ({"password": "line\nbreak"}, "password"),
        ({"password": 1234567890}, "password"),
        ({"password": ["correct horse"]}, "password"),
        ({"role": "admin"}, "role"),
        ({"id": 1}, "id"),
    ],
)
def test_a_bad_registration_is_422_names_the_field_and_repeats_no_password(register, members, field):
    answer = register(**{"username": "ada", **members})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert str(members.get("password", "correct horse")) not in answer.text


def test_a_long_password_of_any_letters_is_taken(register, check):
    password = "pässwörd 🐎" * 11
    assert register(password=password).status_code == 201
    assert check("ada", password).status_code == 200


def test_registering_needs_a_body(client):
    headers = {"Content-Type": "application/json"}
    assert client.post("/users/", data=b"", headers=headers).status_code == 400
    assert client.post("/users/", data=json.dumps({}), headers=headers).status_code == 422
