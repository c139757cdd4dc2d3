"""Access to the schema `users`."""

import psycopg2.errors

from servicekit.database.pool import Database, Row
from user_service.domain import Login, User, UsernameTaken

_COLUMNS = "id, username, role, created_at"


class Users:
    """Reads and writes users.

    Args:
        database: The service's database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, username: str, password_hash: str, role: str = "customer") -> User:
        """Add a user.

        Raises:
            UsernameTaken: The name exists; upper and lower case count as the same.
        """
        try:
            row = self._database.fetch_one(
                "INSERT users",
                f"INSERT INTO users.users (username, password_hash, role)"  # noqa: S608  # our own constant
                f" VALUES (%(username)s, %(password_hash)s, %(role)s) RETURNING {_COLUMNS}",
                {"username": username, "password_hash": password_hash, "role": role},
            )
        except psycopg2.errors.UniqueViolation:
            raise UsernameTaken from None
        assert row is not None  # noqa: S101  # RETURNING returns a row
        return _user(row)

    def by_id(self, user_id: int) -> User | None:
        """Return a user, None if there is none."""
        row = self._database.fetch_one(
            "SELECT users",
            f"SELECT {_COLUMNS} FROM users.users WHERE id = %(id)s",  # noqa: S608
            {"id": user_id},
        )
        return None if row is None else _user(row)

    def credentials(self, username: str) -> tuple[User, str] | None:
        """Return a user and the password's hash; None if no user with this name may log in."""
        found = self.login(username)
        return None if found is None or found.closed else (found.user, found.password_hash)

    def login(self, username: str) -> Login | None:
        """Return the login with this name, open or closed; None if there is none."""
        row = self._database.fetch_one(
            "SELECT users",
            f"SELECT {_COLUMNS}, password_hash, closed_at FROM users.users"  # noqa: S608
            " WHERE lower(username) = lower(%(username)s)",
            {"username": username},
        )
        return None if row is None else Login(_user(row), row["password_hash"], closed=row["closed_at"] is not None)

    def close_login(self, user_id: int, *, closed: bool) -> None:
        """Close or open a user's login."""
        self._database.fetch_one(
            "UPDATE users",
            "UPDATE users.users SET closed_at = CASE WHEN %(closed)s THEN now() END WHERE id = %(id)s RETURNING id",
            {"closed": closed, "id": user_id},
        )

    def newest(self, before_id: int, count: int) -> list[User]:
        """Return up to `count` users with smaller ids than `before_id`, newest first."""
        rows = self._database.fetch_all(
            "SELECT users",
            f"SELECT {_COLUMNS} FROM users.users WHERE id < %(before)s"  # noqa: S608
            " ORDER BY id DESC LIMIT %(count)s",
            {"before": before_id, "count": count},
        )
        return [_user(row) for row in rows]


def _user(row: Row) -> User:
    return User(row["id"], row["username"], row["role"], row["created_at"])
