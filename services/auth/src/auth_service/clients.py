"""The client of user-service."""

from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from auth_service.domain import Account, BadCredentials
from servicekit.calls.client import ServiceClient
from servicekit.web.errors import DependencyUnavailable
from servicekit.web.openapi import MAX_ID


class _Account(BaseModel):
    """The fields that an answer must have; others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    user_id: int = Field(ge=1, le=MAX_ID)
    role: Literal["customer", "admin"]


class Users:
    """Checks credentials.

    Args:
        client: A client of user-service.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def check(self, username: str, password: str) -> Account:
        """Return the account that these credentials belong to.

        Raises:
            BadCredentials: They belong to no account.
            DependencyUnavailable: user-service did not answer, or its answer contains no account.
        """
        # No retry: password checks are slow on purpose, and a client that gets 503 tries again anyway.
        reply = self._client.post("/internal/credentials", {"username": username, "password": password})
        if reply.status == HTTPStatus.UNAUTHORIZED:
            raise BadCredentials
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable("user-service")
        try:
            account = _Account.model_validate(reply.body)
        except ValidationError as error:
            raise DependencyUnavailable("user-service") from error
        return Account(account.user_id, account.role)
