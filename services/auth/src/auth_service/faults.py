"""Faults of auth-service; see `shop.faults`."""

from pathlib import Path

from auth_service.keys import KeyRing as Plain
from auth_service.keys import SigningKey
from servicekit.web.errors import DependencyUnavailable
from shop.faults import Faults

FLAGS = ("keys-unreadable",)
"""The flags that are evaluated here."""


class KeyRing(Plain):
    """A key ring whose files cannot be read while the fault is on; see the base class."""

    def __init__(self, folder: Path, token_ttl_seconds: int, faults: Faults) -> None:
        super().__init__(folder, token_ttl_seconds)
        self._faults = faults

    def _keys(self) -> list[SigningKey]:
        if self._faults.is_set("keys-unreadable"):
            raise DependencyUnavailable("signing-keys") from PermissionError()
        return super()._keys()
