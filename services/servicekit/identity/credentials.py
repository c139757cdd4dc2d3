"""This service's own tokens for its calls to internal routes of other services.

They are OAuth 2's client credentials (RFC 6749, section 4.4), but in JSON. A service sends its name and its secret to
the application's authority, and gets a token for one audience. A background task fetches it long before it is needed.
"""

import base64
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servicekit.calls.client import ServiceClient
from servicekit.process.background import Periodic
from servicekit.telemetry import logs, tracing
from servicekit.web.errors import DependencyUnavailable

_LOOK_SECONDS = 1.0  # between two checks whether a new token is due
_AGAIN_SECONDS = 5.0  # after a failure, in the background
_RENEWED_AFTER = 1 / 6  # of its lifetime, so the authority may be down for the other five sixths
_RETRY_SECONDS = 1.0  # after a failure, if a request needs the token
_MARGIN_SECONDS = 5.0  # the token has to be valid still when it arrives


class _Given(BaseModel):
    """The fields that the authority's answer must have; others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    access_token: str = Field(pattern=r"^[A-Za-z0-9._~+/-]+=*$", max_length=4096)
    expires_in: int = Field(gt=0)


@dataclass(frozen=True)
class _Held:
    token: str
    seconds: float
    had_at: float


class ServiceTokens:
    """Tokens for calls to one other service; see `servicekit.calls.client.Credential`.

    Args:
        client: A client of the authority.
        name: This service's name.
        secret_file: The file with its secret. It is read for each fetch, so a new secret takes effect at once.
        audience: The other service's name.
        clock: Seconds, for tests.
        path: The authority's path for tokens.
    """

    def __init__(  # noqa: PLR0913
        self,
        client: ServiceClient,
        name: str,
        secret_file: Path,
        audience: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        path: str = "/token",
    ) -> None:
        self._client = client
        self._name = name
        self._secret_file = secret_file
        self._audience = audience
        self._clock = clock
        self._path = path
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failed_at = float("-inf")

    def token(self) -> str:
        """Return a token; fetch one now if there is none.

        Raises:
            DependencyUnavailable: There is none, and none could be fetched.
        """
        held = self._valid()
        if held is None:
            with self._lock:
                held = self._valid()
                if held is None:
                    if self._clock() - self._failed_at < _RETRY_SECONDS:
                        raise DependencyUnavailable(self._client.peer)
                    held = self._fetch()
        return held.token

    def refused(self, token: str) -> None:
        """Forget a token that was rejected."""
        with self._lock:
            if self._held is not None and self._held.token == token:
                self._held = None

    def task(self) -> Periodic:
        """Return the background task that renews the token."""
        return Periodic("service-token", _LOOK_SECONDS, self._renew)

    def _renew(self, _stopping: Callable[[], bool]) -> None:
        with self._lock:
            held = self._valid()
            now = self._clock()
            due = held is None or now - held.had_at >= held.seconds * _RENEWED_AFTER
            if due and now - self._failed_at >= _AGAIN_SECONDS:
                with contextlib.suppress(DependencyUnavailable):  # it is logged, and will be tried again
                    self._fetch()

    def _valid(self) -> _Held | None:
        held = self._held
        if held is None or self._clock() - held.had_at >= held.seconds - _MARGIN_SECONDS:
            return None
        return held

    def _fetch(self) -> _Held:
        asked_at = self._clock()
        try:
            with tracing.unsampled():
                self._held = _Held(*self._ask(), asked_at)
        except DependencyUnavailable:
            if self._failed_at == float("-inf"):  # only once for each outage
                logs.get_logger().warning("service_token.unavailable", audience=self._audience)
            self._failed_at = self._clock()
            raise
        self._failed_at = float("-inf")
        return self._held

    def _ask(self) -> tuple[str, float]:
        try:
            secret = self._secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DependencyUnavailable(self._client.peer) from error
        basic = base64.b64encode(f"{self._name}:{secret}".encode()).decode()
        reply = self._client.post(
            self._path,
            {"grant_type": "client_credentials", "audience": self._audience},
            authorization=f"Basic {basic}",
            retry=True,
        )
        if reply.status != HTTPStatus.OK:
            raise DependencyUnavailable(self._client.peer)
        try:
            given = _Given.model_validate(reply.body)
        except ValidationError as error:
            raise DependencyUnavailable(self._client.peer) from error
        return given.access_token, given.expires_in
