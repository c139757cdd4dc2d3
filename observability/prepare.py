"""Give each backend a volume that it can write to, and Grafana a password of its own.

Runs before the backends, each time, as root; what is there stays. An empty volume belongs to root, and the backends
are not root.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

OWNERS = {"collector": (10001, 10001), "jaeger": (10001, 10001), "loki": (10001, 10001), "prometheus": (65534, 65534)}
"""Volume and who writes to it: the users of the official images."""

GRAFANA = (472, 0)


def main() -> None:
    """Prepare the volumes that are still root's."""
    volumes = Path("/volumes")
    for name, owner in OWNERS.items():
        give(volumes / name, owner)
    grafana = volumes / "grafana"
    if grafana.stat().st_uid == 0:
        # Before the folder is given away: afterwards root, which has lost its powers here, could not write to it.
        password = grafana / "admin_password"
        password.unlink(missing_ok=True)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
            file.write(secrets.token_urlsafe(24))
        give(password, GRAFANA)
        give(grafana, GRAFANA)
        print("prepare: made a password for Grafana's admin")


def give(path: Path, owner: tuple[int, int]) -> None:
    """Make a user the owner of what is still root's."""
    if path.stat().st_uid == 0:
        os.chown(path, *owner)


if __name__ == "__main__":
    main()
