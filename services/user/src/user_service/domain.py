"""Users."""

from dataclasses import dataclass
from datetime import datetime


class UserNotFound(Exception):  # noqa: N818  # named for what happened
    """There is no such user, or the one who asks may not know."""

    def __init__(self, user_id: int) -> None:
        super().__init__(f"There is no user {user_id}.")


class UsernameTaken(Exception):  # noqa: N818
    """Somebody has this name already, in whatever case."""

    def __init__(self) -> None:
        super().__init__("username: this name is taken.")


class BadCredentials(Exception):  # noqa: N818
    """Username and password do not belong together."""

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


@dataclass(frozen=True)
class User:
    """A user, without what only the password check needs."""

    id: int
    username: str
    role: str
    created_at: datetime


@dataclass(frozen=True)
class Login:
    """How a user logs in.

    Attributes:
        user: Who.
        password_hash: What the password is compared with.
        closed: Whether it is closed: no password lets anybody in.
    """

    user: User
    password_hash: str
    closed: bool
