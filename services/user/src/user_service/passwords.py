"""Hashes and checks passwords by argon2id (RFC 9106), a limited number at the same time."""

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from servicekit.identity.passwords import prepared, spellings
from servicekit.web.errors import DependencyUnavailable

_AT_ONCE = 2  # each uses 19 MiB and a core for some 20 ms, so more at the same time would not be faster
_WAIT_SECONDS = 2.0


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self) -> None:
        # OWASP's first choice for argon2id: 19 MiB, 2 passes, 1 lane.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        # Separate limits, so that a flood of registrations, which anybody can send, does not block logins.
        self._hashing = threading.BoundedSemaphore(_AT_ONCE)
        self._checking = threading.BoundedSemaphore(_AT_ONCE)
        self._nobodys = self._hasher.hash("nobody's password")

    def hash(self, password: str) -> str:
        """Return the encoded hash, including salt and parameters.

        Raises:
            DependencyUnavailable: Too many passwords are being hashed.
        """
        with _Slot(self._hashing):
            return self._hasher.hash(prepared(password))

    def matches(self, password_hash: str | None, password: str) -> bool:
        """Check a password in all its Unicode forms: one for ASCII, up to three for others.

        Args:
            password_hash: The user's hash; None if there is no such user. That takes just as long, so that the time of
                an answer does not tell which names exist.
            password: The given password.

        Raises:
            DependencyUnavailable: Too many passwords are being checked.
        """
        with _Slot(self._checking):
            found = any(self._verifies(password_hash or self._nobodys, spelling) for spelling in spellings(password))
        return found and password_hash is not None

    def _verifies(self, password_hash: str, spelling: str) -> bool:
        try:
            return self._hasher.verify(password_hash, spelling)
        except (VerificationError, InvalidHashError):
            return False


class _Slot:
    def __init__(self, slots: threading.BoundedSemaphore) -> None:
        self._slots = slots

    def __enter__(self) -> None:
        if not self._slots.acquire(timeout=_WAIT_SECONDS):
            raise DependencyUnavailable("user-service")

    def __exit__(self, *_: object) -> None:
        self._slots.release()
