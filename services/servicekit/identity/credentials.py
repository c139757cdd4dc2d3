"""This service's own tokens, with which it calls internal routes of others.

OAuth 2's client credentials (RFC 6749, section 4.4), in JSON as everything here: the application's authority gives a
token for one audience to who knows the client's secret. It is fetched beside the requests, long before it is needed.
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

_LOOK_SECONDS = 1.0  # between two looks whether the token is due
_AGAIN_SECONDS = 5.0  # after a failure, in the background
_RENEWED_AFTER = 1 / 6  # of its life: for the other five sixths the authority may be down
_RETRY_SECONDS = 1.0  # after a failure, where a request needs it
_MARGIN_SECONDS = 5.0  # a token has to arrive, too


class _Given(BaseModel):
    """What the authority's answer has to hold; whatever else it holds is not looked at."""

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
        secret_file: File with its secret. Read each time, so that another one counts at once.
        audience: The other service's name.
        clock: Seconds, for tests.
        path: Where the authority gives tokens.
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
        """Return a token, fetched now if there is none.

        Raises:
            DependencyUnavailable: There is none, and the authority gives none.
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
        """Forget a token that was refused."""
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
                with contextlib.suppress(DependencyUnavailable):  # it is logged, and there will be another look
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
            if self._failed_at == float("-inf"):  # once an outage
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
