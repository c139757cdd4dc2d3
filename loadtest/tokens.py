"""Logins of many users, at a rate that the gateway lets through."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Token:
    """What a login gave, and until when (monotonic seconds) it is good."""

    text: str
    until: float

    def good(self) -> bool:
        """Tell whether it is still to be used."""
        return time.monotonic() < self.until


class Tokens:
    """Lets users log in, so many a second; who comes faster shares a token that is there.

    The gateway takes 10 logins a second of one address, and each costs a password check: a spike of users that all
    log in at once would measure this limit.
    """

    def __init__(self, logins_per_second: float) -> None:
        self._pause = 1 / logins_per_second
        self._next = 0.0
        self._held: list[Token] = []
        self._first = threading.Lock()

    def take(self, log_in: Callable[[], Token | None]) -> Token | None:
        """Give a token, new or held; None when there is none and the login failed."""
        if not self._good():
            with self._first:  # only one of those who come first logs in, the others wait for its token
                if not self._good():
                    return self._new(log_in)
        now = time.monotonic()
        if now >= self._next and (token := self._new(log_in)):
            return token
        held = self._good()
        return random.choice(held) if held else None

    def _good(self) -> list[Token]:
        self._held = [token for token in self._held if token.good()]
        return self._held

    def _new(self, log_in: Callable[[], Token | None]) -> Token | None:
        wait = self._next - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._next = time.monotonic() + self._pause
        token = log_in()
        if token:
            self._held.append(token)
        return token
