"""Give each backend a volume that it can write to, and Grafana a password of its own.

Runs before the backends, each time, as root; what is there stays. An empty volume belongs to root, or to whom the image
says, and the backends are not root.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

OWNERS = {
    "collector": (10001, 10001),
    "jaeger": (10001, 10001),
    "loki": (10001, 10001),
    "prometheus": (65534, 65534),
    "alertmanager": (65534, 65534),
    "grafana": (472, 0),
}
"""Volume and who writes to it: the users of the official images."""


def main() -> None:
    """Prepare the volumes."""
    volumes = Path("/volumes")
    for name, owner in OWNERS.items():
        if (volumes / name).is_dir():  # docker-compose.light.yml has two of them
            give(volumes / name, owner)
    password = volumes / "grafana" / "admin_password"
    if password.parent.is_dir() and not password.exists():
        partial = password.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
            file.write(secrets.token_urlsafe(24))
        give(partial, OWNERS["grafana"])
        partial.rename(password)
        print("prepare: made a password for Grafana's admin")


def give(path: Path, owner: tuple[int, int]) -> None:
    """Make a user the owner, unless it is already."""
    if (path.stat().st_uid, path.stat().st_gid) != owner:
        os.chown(path, *owner)


if __name__ == "__main__":
    main()
