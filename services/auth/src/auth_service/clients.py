"""user-service, as auth-service sees it."""

from http import HTTPStatus

from auth_service.domain import Account, BadCredentials
from servicekit.errors import DependencyUnavailable
from servicekit.http import ServiceClient


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
            BadCredentials: To none.
            DependencyUnavailable: user-service did not answer.
        """
        # Not tried again: a password check is made to be slow, and a client who gets 503 will ask again anyway.
        reply = self._client.post("/internal/credentials", {"username": username, "password": password})
        if reply.status == HTTPStatus.UNAUTHORIZED:
            raise BadCredentials
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable("user-service")
        return Account(reply.body["user_id"], reply.body["role"])
