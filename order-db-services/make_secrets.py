"""Give each container the secrets that it needs, and no other: passwords and signing keys in volumes.

Runs before the stack, each time, as root. What is there stays, unless the person gave something else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path

MIGRATIONS_GID = 10000
"""Group of the migrations, which set every role's password."""

PASSWORDS = {"orders_user": 999, "users_app": 10002, "orders_app": 10004, "payments_app": 10005}
"""Role and the uid of the container that logs in as it (or is it: 999 is the database)."""

AUTH_UID = 10001

CLIENT_SECRETS = {"order-service": 10004}
"""Service and its uid: what it proves to auth-service, which reads it too, who it is with."""


def main() -> None:
    """Fill the volumes."""
    given, passwords, keys = Path("/given"), Path("/run/secrets"), Path("/run/keys")
    passwords.chmod(0o755)
    for role, uid in PASSWORDS.items():
        make_password(passwords / role, given / role, uid, MIGRATIONS_GID)
    for service, uid in CLIENT_SECRETS.items():
        make_password(passwords / service, given / service, uid, AUTH_UID)
    # auth-service makes its first key itself, where none was given.
    if keys.stat().st_uid != AUTH_UID:
        give(keys, AUTH_UID, AUTH_UID, 0o700)
    add_signing_key(keys, given / "signing_key.pem")


def make_password(path: Path, given: Path, uid: int, gid: int) -> None:
    """Write a password: the given one, else the one that is there, else a new one.

    Args:
        path: Its file.
        given: The file that a person may have put there; its first line counts.
        uid: Who shows it.
        gid: Who sets or checks it: the migrations a role's, auth-service a service's.
    """
    wanted = given.read_text(encoding="utf-8").partition("\n")[0].strip() if given.exists() else None
    if wanted == "":
        sys.exit(f"init: the password in {given.name} is empty: write one, or delete the file")
    if path.exists() and wanted in {None, path.read_text(encoding="utf-8").strip()}:
        return
    write(path, f"{wanted or secrets.token_urlsafe(24)}\n".encode(), uid, gid, 0o440)
    print(f"init: {'took the given' if wanted else 'made a new'} password for {path.name}")


def add_signing_key(keys: Path, given: Path) -> None:
    """Add the given signing key to the key ring, as a rotation would: it signs soon, the older ones stay valid.

    Args:
        keys: auth-service's folder of keys.
        given: An RSA private key in PEM, if a person gave one.
    """
    if not given.exists():
        return
    pem = given.read_bytes()
    digest = hashlib.sha256(pem).hexdigest()
    if any(path.read_text(encoding="utf-8") == digest for path in keys.glob("*.revoked")):
        print("init: the given signing key was revoked: give another one, or delete the file")
        return
    if any(path.read_bytes() == pem for path in keys.glob("*.pem")):
        return
    # As auth_service.keys names them: the newest signs, also when the clock has gone back since the last one.
    newest = max((int(path.stem) for path in keys.glob("*.pem") if path.stem.isdigit()), default=0)
    stamp = max(int(time.time() * 1000), newest + 1)
    write(keys / f"{stamp:013d}.pem", pem, AUTH_UID, AUTH_UID, 0o600)
    print("init: took the given signing key")


def write(path: Path, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Write a file for its reader only; others see it whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    give(partial, uid, gid, mode)
    partial.rename(path)


def give(path: Path, uid: int, gid: int, mode: int) -> None:
    """Set mode and owner, in this order: afterwards it is no longer ours to change."""
    path.chmod(mode)
    os.chown(path, uid, gid)


if __name__ == "__main__":
    main()
