"""The claims of tokens, and who may get one."""

from dataclasses import dataclass
from typing import Any

NAME = "auth-service"
"""The name of this service."""

MAY_CALL = {"order-service": frozenset({"payment-service"})}
"""For each caller, the services that it gets tokens for. The called service decides which routes these tokens open.

auth-service's own calls to user-service are not listed: it creates the token for them itself.
"""


class BadCredentials(Exception):  # noqa: N818  # named after what happened
    """Username and password do not belong together. The message does not say which of them is wrong."""

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


class ClientRefused(Exception):  # noqa: N818
    """The caller is not a known service, or its secret is wrong. The message does not say which."""

    def __init__(self) -> None:
        super().__init__("This needs the name of a service and its secret.")


@dataclass(frozen=True)
class Account:
    """The account of a user whose credentials were right."""

    user_id: int
    role: str


def claims(account: Account, *, issuer: str, audience: str, now: int, ttl_seconds: int) -> dict[str, Any]:
    """Return the claims of a user's token (RFC 7519). It has the user's id, but no name and no address.

    Args:
        account: Whose token it is.
        issuer: `iss`.
        audience: `aud`.
        now: Seconds since the epoch.
        ttl_seconds: Lifetime.
    """
    return {
        "iss": issuer,
        "aud": audience,
        "sub": str(account.user_id),
        "role": account.role,
        "iat": now,
        "exp": now + ttl_seconds,
    }


def service_claims(caller: str, *, issuer: str, audience: str, now: int, ttl_seconds: int) -> dict[str, Any]:
    """Return the claims of a service's token. Its `aud` is the called service, which no user's token has.

    Args:
        caller: The service whose token it is.
        issuer: `iss`.
        audience: `aud`.
        now: Seconds since the epoch.
        ttl_seconds: Lifetime.
    """
    return {"iss": issuer, "aud": audience, "sub": caller, "iat": now, "exp": now + ttl_seconds}
