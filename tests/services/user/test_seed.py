import concurrent.futures
import json
import os
import subprocess
import sys

import pytest

from tests.fixtures.database import PROJECT

ROWS = "SELECT username, role FROM users.users ORDER BY id"


@pytest.fixture
def seed(database):
    """Run the seed step as the runner does: `seed(SEED_DEMO_ADMIN="false")`."""

    def run(*arguments, **env):
        paths = (PROJECT / "services", PROJECT / "services/user/src")
        return subprocess.run(
            [sys.executable, "-m", "user_service.seed", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
                **database.env("users_app"),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


def _events(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


def test_seeding_makes_the_demo_admin_once(seed, database, check):
    assert _events(seed()) == ["seed.completed"]
    assert _events(seed()) == ["seed.unneeded"]
    assert database.run(ROWS) == [("admin", "admin")]
    answer = check("admin", "password")
    assert answer.json()["role"] == "admin"


def test_two_at_once_make_one_admin(seed, database):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        events = sorted(_events(done)[0] for done in pool.map(lambda _: seed(), range(2)))
    assert events == ["seed.completed", "seed.unneeded"]
    assert database.run(ROWS) == [("admin", "admin")]


def test_seeding_can_be_switched_off(seed, database):
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.skipped"]
    assert database.run(ROWS) == []


def test_switching_it_off_closes_the_login_that_was_made_before(seed, database, check, register):
    seed()
    register("ada")
    assert check("admin", "password").status_code == 200
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.closed"]
    closed, wrong = check("admin", "password"), check("admin", "wrong")
    assert closed.status_code == wrong.status_code == 401
    assert {**closed.json(), "trace_id": ""} == {**wrong.json(), "trace_id": ""}
    assert check("ada").status_code == 200
    assert register("admin", "another password").status_code == 409  # the name stays taken
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.skipped"]
    assert database.run(ROWS) == [("admin", "admin"), ("ada", "customer")]


def test_switching_it_on_again_opens_the_login(seed, check):
    seed()
    seed(SEED_DEMO_ADMIN="false")
    assert _events(seed()) == ["seed.reopened"]
    assert check("admin", "password").json()["role"] == "admin"
    assert _events(seed()) == ["seed.unneeded"]


def test_somebody_elses_login_of_that_name_is_left_alone(seed, register, check, database):
    """A customer may have the name, and an admin a password of their own."""
    register("admin", "password")
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.skipped"]
    assert check("admin", "password").status_code == 200
    database.run("UPDATE users.users SET role = 'admin'")
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.closed"]
    assert check("admin", "password").status_code == 401


def test_an_admin_with_a_password_of_their_own_is_not_closed(seed, register, check, database):
    register("admin", "a better password")
    database.run("UPDATE users.users SET role = 'admin'")
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.skipped"]
    assert check("admin", "a better password").status_code == 200


def test_an_admin_who_changed_the_password_keeps_it(seed, database, register, check):
    register("Admin", "a better password")
    database.run("UPDATE users.users SET role = 'admin'")
    assert _events(seed()) == ["seed.unneeded"]
    answer = check("admin", "password")
    assert answer.status_code == 401


def test_help_says_what_it_makes(seed):
    done = seed("--help")
    assert done.returncode == 0
    assert "SEED_DEMO_ADMIN" in done.stdout


def test_without_a_database_it_fails(seed):
    done = seed(DATABASE_NAME="nowhere")
    assert done.returncode != 0
    assert "order-db" in done.stderr


def test_a_missing_setting_is_named(seed):
    done = seed(DATABASE_USER="")
    assert done.returncode != 0
    assert "DATABASE_USER" in done.stderr
