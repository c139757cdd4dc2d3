"""What a token says."""

from dataclasses import dataclass
from typing import Any


class BadCredentials(Exception):  # noqa: N818  # named for what happened
    """Username and password do not belong together. The message does not say which of them is wrong."""

    def __init__(self) -> None:
        super().__init__("Username or password is wrong.")


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
