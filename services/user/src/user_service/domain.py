"""Users."""

from dataclasses import dataclass
from datetime import datetime


class UserNotFound(Exception):  # noqa: N818  # named after what happened
    """There is no such user, or the caller may not see it."""

    def __init__(self, user_id: int) -> None:
        super().__init__(f"There is no user {user_id}.")


class UsernameTaken(Exception):  # noqa: N818
    """The name is taken; upper and lower case count as the same."""

    def __init__(self) -> None:
        super().__init__("username: this name is taken.")


class BadCredentials(Exception):  # noqa: N818
    """Username and password do not belong together."""

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


@dataclass(frozen=True)
class User:
    """A user, without the fields that only the password check needs."""

    id: int
    username: str
    role: str
    created_at: datetime


@dataclass(frozen=True)
class Login:
    """A user's login.

    Attributes:
        user: The user.
        password_hash: The hash of the user's password.
        closed: Whether the login is closed, so that no password is accepted.
    """

    user: User
    password_hash: str
    closed: bool
