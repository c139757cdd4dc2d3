"""The signing keys: files in a folder that all replicas share, and that survives restarts.

A rotation adds a key. It is published at once, and signs tokens a little later, when every service could have fetched
it. The previous key stays published until the last token that it signed has expired. So no user is logged out.

If a key has leaked, that takes too long. Revoking adds a new key that signs at once, and withdraws all others. A
withdrawn key stays invalid, even if its file is put back.

`python -m auth_service.keys rotate` rotates, `... revoke` revokes, `... ensure` creates the first key if there is none.
"""

import argparse
import base64
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from auth_service.settings import KeySettings
from servicekit.config import ConfigError, load
from servicekit.identity.auth import REFETCH_SECONDS, REFRESH_SECONDS
from servicekit.web.errors import DependencyUnavailable

PREPUBLISH_SECONDS = 15
"""Seconds after which a new key signs. Services fetch an unknown key at most every 10 s."""

_EXPIRY_MARGIN_SECONDS = 60  # because replicas' clocks differ a little
_KEY_BITS = 2048
_REVOKED = ".revoked"  # the suffix of a marker file for each revoked key, named after its kid
_FILE_NAME = re.compile(r"^(\d{13})\.pem$")  # the time at which it was created, in milliseconds since the epoch


@dataclass(frozen=True)
class SigningKey:
    """A key pair, its id and its public JWK."""

    name: str
    kid: str
    created_at: float
    private: rsa.RSAPrivateKey
    public: rsa.RSAPublicKey
    jwk: dict[str, Any]


class KeyRing:
    """The keys in a folder. It reads the folder each time, so that any process's rotation takes effect at once.

    Args:
        folder: The folder of the key files.
        token_ttl_seconds: The lifetime of a token, and so the time for which a retired key stays published.
        clock: Seconds since the epoch, for tests.
    """

    def __init__(self, folder: Path, token_ttl_seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._retention = token_ttl_seconds + _EXPIRY_MARGIN_SECONDS
        self._clock = clock
        self._loaded: dict[str, SigningKey] = {}

    def signing_key(self) -> SigningKey:
        """Return the key that signs now: the newest one that has been published for PREPUBLISH_SECONDS."""
        keys = self._published()
        ripe = self._clock() - PREPUBLISH_SECONDS
        return next((key for key in reversed(keys) if key.created_at <= ripe), keys[0])

    def jwks(self) -> dict[str, Any]:
        """Return the published keys as a JWK Set (RFC 7517)."""
        return {"keys": [key.jwk for key in self._published()]}

    def key(self, kid: str) -> Any | None:
        """Return the public key with this id, None if it is not published."""
        for key in self._published():
            if key.kid == kid:
                return key.public
        return None

    def check(self) -> None:
        """Check that there is a key for signing.

        Raises:
            DependencyUnavailable: There is none.
        """
        self.signing_key()

    def ensure(self) -> None:
        """Create the first key if there is none. Replicas that start at the same time create only one."""
        if self._folder.is_dir() and self._load():
            return  # write nothing, since the folder may be read-only
        with self._lock():
            if not self._load():
                self._add()

    def rotate(self) -> str:
        """Add a key, and delete those whose tokens have all expired.

        Returns:
            The new key's id.
        """
        with self._lock():
            kept = {key.name for key in self._published()} if self._load() else set()
            for name in self._names():
                if name not in kept:
                    (self._folder / name).unlink()
            return self._add().kid

    def revoke(self) -> tuple[str, int]:
        """Add a key that signs at once, and withdraw all others. Tokens that they signed become invalid.

        Returns:
            The new key's id, and how many keys were withdrawn.
        """
        with self._lock():
            withdrawn = self._load()
            new = self._add()
            for key in withdrawn:
                # Written before the key's file is deleted, because Compose puts a given key back at the next start. The
                # digest is for order-db-services/make_secrets.py, which does not know the kid.
                digest = hashlib.sha256((self._folder / key.name).read_bytes()).hexdigest()
                _write(self._folder / f"{key.kid}{_REVOKED}", digest.encode())
            for name in self._names():
                if name != new.name:
                    (self._folder / name).unlink()
        return new.kid, len(withdrawn)

    def _published(self) -> list[SigningKey]:
        keys = self._keys()
        now = self._clock()
        # A key retires when its successor starts to sign.
        return [
            key
            for key, successor in zip(keys, [*keys[1:], None], strict=True)
            if successor is None or now < successor.created_at + PREPUBLISH_SECONDS + self._retention
        ]

    def _keys(self) -> list[SigningKey]:
        try:
            keys = self._load()
        except (OSError, ValueError, TypeError) as error:  # a file is not a valid key; an operator has to check it
            raise DependencyUnavailable("signing-keys") from error
        if not keys:
            raise DependencyUnavailable("signing-keys")
        return keys

    def _load(self) -> list[SigningKey]:
        loaded = {}
        for name in self._names():
            with suppress(FileNotFoundError):  # withdrawn at this moment
                loaded[name] = self._loaded.get(name) or _read(self._folder / name)
        self._loaded = loaded
        revoked = {path.stem for path in self._folder.glob(f"*{_REVOKED}")}
        return [key for key in loaded.values() if key.kid not in revoked]

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir() if _FILE_NAME.match(path.name))

    def _add(self) -> SigningKey:
        private = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        newest = max((int(name.removesuffix(".pem")) for name in self._names()), default=0)
        stamp = max(int(self._clock() * 1000), newest + 1)  # the newest key signs, even if the clock went back
        path = self._folder / f"{stamp:013d}.pem"
        _write(path, pem)
        return _read(path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")  # then renamed, so that a reader sees a whole file or none
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _read(path: Path) -> SigningKey:
    private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise TypeError(f"{path} is not an RSA key")
    public = private.public_key()
    described = RSAAlgorithm.to_jwk(public, as_dict=True)
    kid = _thumbprint(described)
    jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": described["n"], "e": described["e"]}
    return SigningKey(path.name, kid, int(path.stem) / 1000, private, public, jwk)


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return a key's thumbprint (RFC 7638), which is its id."""
    canonical = json.dumps({name: jwk[name] for name in ("e", "kty", "n")}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m auth_service.keys", description="Manage the signing keys.")
    parser.add_argument(
        "action",
        choices=["ensure", "rotate", "revoke"],
        help="ensure: make the first key if there is none; rotate: add a key that signs from "
        f"{PREPUBLISH_SECONDS} s on; revoke: add a key that signs at once, and withdraw all others",
    )
    action = parser.parse_args(arguments).action
    try:
        settings = load(KeySettings)
    except ConfigError as error:
        parser.error(str(error))
    ring = KeyRing(settings.auth_keys_dir, settings.token_ttl_seconds)
    if action == "ensure":
        ring.ensure()
    elif action == "rotate":
        print(f"new key {ring.rotate()}, signs in {PREPUBLISH_SECONDS} s")  # noqa: T201
    else:
        kid, withdrawn = ring.revoke()
        print(  # noqa: T201
            f"new key {kid} signs from now on; withdrawn: {withdrawn}.\n"
            "Everybody has to log in again. auth-service refuses the old tokens at once, the other services within"
            f" {REFRESH_SECONDS:.0f} s; one that cannot reach auth-service meanwhile, as soon as it can.\n"
            f"Until they know the new key, for {REFETCH_SECONDS:.0f} s at most, they may refuse new logins too."
        )


if __name__ == "__main__":
    main()
