"""What a token says."""

from dataclasses import dataclass
from typing import Any

NAME = "auth-service"
"""What this service is called, by itself and by others."""

MAY_CALL = {"order-service": frozenset({"payment-service"})}
"""Which internal routes are open to whom: caller, and the services it gets tokens for. Each says itself what it opens.

auth-service's own calls to user-service are not here: it makes that token for itself.
"""


class BadCredentials(Exception):  # noqa: N818  # named for what happened
    """Username and password do not belong together. The message does not say which of them is wrong."""

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


class ClientRefused(Exception):  # noqa: N818
    """It is no service that gets tokens, or the secret is not its own. The message does not say which."""

    def __init__(self) -> None:
        super().__init__("This needs the name of a service and its secret.")


@dataclass(frozen=True)
class Account:
    """Whose credentials were right."""

    user_id: int
    role: str


def claims(account: Account, *, issuer: str, audience: str, now: int, ttl_seconds: int) -> dict[str, Any]:
    """Return the claims of a token (RFC 7519): no name and no address, the id is enough.

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
    """Return the claims of a service's token: `aud` is the one service that it may call, and no user's token has that.

    Args:
        caller: The service whose token it is.
        issuer: `iss`.
        audience: `aud`.
        now: Seconds since the epoch.
        ttl_seconds: Lifetime.
    """
    return {"iss": issuer, "aud": audience, "sub": caller, "iat": now, "exp": now + ttl_seconds}
