"""Asks the gateway from outside whether it answers: its log says nothing when nothing comes, dead or idle."""

import contextlib
import http.client
from collections.abc import Callable
from http import HTTPStatus

from servicekit.process.background import Periodic

EVERY_SECONDS = 2.0
_TIMEOUT_SECONDS = 2.0


class Probe:
    """Asks the gateway's `/healthz` again and again, each time on a connection of its own, as a new client would.

    Args:
        url: The gateway's root: `http://` and its address.
        tell: Is told each time whether it answered well.
    """

    def __init__(self, url: str, tell: Callable[[bool], None]) -> None:
        self._address = url.removeprefix("http://")
        self._tell = tell
        self._periodic = Periodic("probe", EVERY_SECONDS, lambda _ending: self.ask())

    def ask(self) -> None:
        """Ask once."""
        self._tell(self._answers())

    def _answers(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def start(self) -> None:
        """Begin."""
        self._periodic.start()

    def stop(self) -> None:
        """End; an answer that is being waited for is given up."""
        self._periodic.stop(0.1)
