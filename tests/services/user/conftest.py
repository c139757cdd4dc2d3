"""A user-service with real PostgreSQL behind it."""

import pytest

from tests.fixtures.services import database_settings
from user_service.app import create_app
from user_service.settings import UserSettings


@pytest.fixture
def client(serve, database, auth_peer):
    # The wait is long because the machine may be busy: what a short one does is tested in servicekit.
    where = {**database_settings(database, "users_app"), "database_pool_wait_seconds": 10}
    return serve(create_app(UserSettings(**where, auth_url=auth_peer.root)))


@pytest.fixture
def check(client, signer):
    """Have a password checked as auth-service does: `check("ada")`."""
    token = signer.service_token("auth-service", "user-service")

    def ask(username="ada", password="correct horse", *, headers=None, **members):
        body = {"username": username, "password": password, **members}
        return client.post("/internal/credentials", body, token, headers=headers)

    return ask


@pytest.fixture
def register(client):
    """Register somebody: `register("ada")`."""

    def ask(username="ada", password="correct horse", **members):
        return client.post("/users/", {"username": username, "password": password, **members})

    return ask


@pytest.fixture
def add_users(database):
    """Put users into the table without the cost of their hashes; their ids, oldest first."""

    def add(count):
        rows = database.run(
            "INSERT INTO users.users (username, password_hash)"
            " SELECT 'user' || n, '-' FROM generate_series(1, %s) AS n RETURNING id",
            count,
        )
        return [user_id for (user_id,) in rows]

    return add
