"""Signs tokens of users, and tokens of services for calls to each other's internal routes."""

import hmac
import time
from collections.abc import Mapping
from typing import Any

import jwt

from auth_service import domain
from auth_service.keys import KeyRing
from auth_service.settings import AuthSettings
from servicekit.identity.auth import ALGORITHM, Forbidden
from servicekit.web.errors import DependencyUnavailable

_OWN_SECONDS = 60  # the lifetime of a token that is created for a single call


class Issuer:
    """Creates tokens.

    Args:
        settings: Their claims and lifetimes.
        ring: The keys that sign them.
    """

    def __init__(self, settings: AuthSettings, ring: KeyRing) -> None:
        self._settings = settings
        self._ring = ring

    def for_user(self, account: domain.Account) -> str:
        """Return a user's token."""
        settings = self._settings
        return self._signed(
            domain.claims(
                account,
                issuer=settings.token_issuer,
                audience=settings.token_audience,
                now=int(time.time()),
                ttl_seconds=settings.token_ttl_seconds,
            )
        )

    def identify(self, caller: str, secret: str) -> None:
        """Check the name and secret of a service.

        Raises:
            ClientRefused: The name is unknown, or the secret is wrong.
            DependencyUnavailable: The expected secret cannot be read.
        """
        if caller not in domain.MAY_CALL:
            raise domain.ClientRefused
        try:
            right = (self._settings.client_secrets_dir / caller).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DependencyUnavailable("client-secrets") from error
        if not right or not hmac.compare_digest(right.encode(), secret.encode()):
            raise domain.ClientRefused

    def for_service(self, caller: str, audience: str) -> str:
        """Return a token for a service's calls to another.

        Raises:
            Forbidden: The caller is not allowed to call this service.
        """
        if audience not in domain.MAY_CALL[caller]:
            raise Forbidden("This service gets no token for this audience.")
        return self._for_service(caller, audience, self._settings.token_ttl_seconds)

    def own(self, audience: str) -> str:
        """Return a token for a call that this service makes itself."""
        return self._for_service(domain.NAME, audience, _OWN_SECONDS)

    def _for_service(self, caller: str, audience: str, ttl_seconds: int) -> str:
        return self._signed(
            domain.service_claims(
                caller,
                issuer=self._settings.token_issuer,
                audience=audience,
                now=int(time.time()),
                ttl_seconds=ttl_seconds,
            )
        )

    def _signed(self, claims: Mapping[str, Any]) -> str:
        key = self._ring.signing_key()
        return jwt.encode(dict(claims), key.private, ALGORITHM, headers={"kid": key.kid})


class OwnTokens:
    """Creates a token for each call that auth-service makes; see `servicekit.calls.client.Credential`."""

    def __init__(self, issuer: Issuer, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience

    def token(self) -> str:
        """Create a token."""
        return self._issuer.own(self._audience)

    def refused(self, token: str) -> None:
        """Do nothing: no token is kept."""
