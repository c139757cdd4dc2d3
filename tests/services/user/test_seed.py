import concurrent.futures
import json
import os
import subprocess
import sys

import pytest

from tests.fixtures.database import PROJECT

ROWS = "SELECT username, role FROM users.users"


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


def test_seeding_makes_the_demo_admin_once(seed, database, client):
    assert _events(seed()) == ["seed.completed"]
    assert _events(seed()) == ["seed.unneeded"]
    assert database.run(ROWS) == [("admin", "admin")]
    answer = client.post("/internal/credentials", {"username": "admin", "password": "password"})
    assert answer.json()["role"] == "admin"


def test_two_at_once_make_one_admin(seed, database):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        events = sorted(_events(done)[0] for done in pool.map(lambda _: seed(), range(2)))
    assert events == ["seed.completed", "seed.unneeded"]
    assert database.run(ROWS) == [("admin", "admin")]


def test_seeding_can_be_switched_off(seed, database):
    assert _events(seed(SEED_DEMO_ADMIN="false")) == ["seed.skipped"]
    assert database.run(ROWS) == []


def test_an_admin_who_changed_the_password_keeps_it(seed, database, register, client):
    register("Admin", "a better password")
    database.run("UPDATE users.users SET role = 'admin'")
    assert _events(seed()) == ["seed.unneeded"]
    answer = client.post("/internal/credentials", {"username": "admin", "password": "password"})
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
