"""user-service's routes."""

from typing import Annotated

from flask import Blueprint
from pydantic import Field
from spectree import SpecTree

from servicekit.identity.auth import Authenticator, Callers, Forbidden, principal
from servicekit.identity.passwords import NewPassword, Password
from servicekit.web.openapi import BEARER, MAX_ID, Answer, Body, Moment, Text, answers
from servicekit.web.paging import PageQuery, cut_page
from user_service.domain import BadCredentials, User, UserNotFound
from user_service.passwords import Passwords
from user_service.signals import Signals
from user_service.store import Users


class Registration(Body):
    """A new user."""

    username: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{2,31}$",
        description="Unique, whatever the case.",
        examples=["ada"],
    )
    password: Annotated[NewPassword, Field(examples=["correct horse"])]


class Credentials(Body):
    """The credentials that auth-service received."""

    username: Annotated[Text, Field(max_length=64)]
    password: Password


class Account(Answer):
    """The account that the credentials belong to."""

    user_id: int
    role: str


class UserAnswer(Answer):
    """A user."""

    id: int
    username: str
    role: str
    created_at: Moment


class UserPage(Answer):
    """A page of users, newest first."""

    items: list[UserAnswer]
    next_cursor: str | None


def blueprint(  # noqa: PLR0913, PLR0917  # what the routes need, by name
    api: SpecTree, users: Users, passwords: Passwords, auth: Authenticator, callers: Callers, signals: Signals
) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("users", __name__)

    @routes.post("/users/")
    @api.validate(resp=answers({201: UserAnswer}, 409, 415, 422), tags=["users"])
    def register(json: Registration) -> tuple[UserAnswer, int, dict[str, str]]:
        """Register."""
        user = users.add(json.username, passwords.hash(json.password))
        signals.user_registered(user.id)
        return _answer(user), 201, {"Location": f"/users/{user.id}"}

    @routes.get("/users/")
    @auth.required
    @api.validate(resp=answers({200: UserPage}, 401, 403, 422), security=BEARER, tags=["users"])
    def list_users(query: PageQuery) -> UserPage:
        """List the users. Only for admins."""
        if not principal().is_admin:
            raise Forbidden
        found = users.newest(query.before_id, query.limit + 1)
        page, next_cursor = cut_page(found, query.limit, lambda user: user.id)
        return UserPage(items=[_answer(user) for user in page], next_cursor=next_cursor)

    @routes.get("/users/me")
    @auth.required
    @api.validate(resp=answers({200: UserAnswer}, 401, 404), security=BEARER, tags=["users"])
    def read_me() -> UserAnswer:
        """Read the token's own user."""
        return _read(users, principal().user_id)

    @routes.get(f"/users/<int(min=1, max={MAX_ID}):user_id>")
    @auth.required
    @api.validate(resp=answers({200: UserAnswer}, 401, 404), security=BEARER, tags=["users"])
    def read_user(user_id: int) -> UserAnswer:
        """Read a user: yourself; admins can read any user."""
        if not principal().is_admin and principal().user_id != user_id:
            raise UserNotFound(user_id)
        return _read(users, user_id)

    @routes.post("/internal/credentials")
    @callers.only("auth-service")
    @api.validate(resp=answers({200: Account}, 401, 403, 415, 422))
    def check_credentials(json: Credentials) -> Account:
        """Check a password. Only for auth-service; not reachable through the gateway."""
        found = users.credentials(json.username)
        with signals.password_verifying():
            matches = passwords.matches(found[1] if found else None, json.password)
        if not matches or found is None:
            raise BadCredentials
        return Account(user_id=found[0].id, role=found[0].role)

    return routes


def _read(users: Users, user_id: int) -> UserAnswer:
    user = users.by_id(user_id)
    if user is None:
        raise UserNotFound(user_id)
    return _answer(user)


def _answer(user: User) -> UserAnswer:
    return UserAnswer(id=user.id, username=user.username, role=user.role, created_at=user.created_at)
