"""Where the shop is that is to be loaded: its gateway, its order database, its Prometheus."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadtest.errors import LoadError
from local import orderdb
from local.settings import Settings, run_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.settings import LoadSettings
    from local.orderdb import Ask

_SECONDS = 120


@dataclass(frozen=True)
class Shop:
    """A running shop."""

    host: str
    ask: Ask | None
    """None when the books cannot be looked into."""
    prometheus: str | None
    targets: Path | None = None
    """Where Prometheus looks for targets that come and go."""
    folder: Path = Path(".run")
    """Where results may be kept."""
    notes: tuple[str, ...] = ()
    """What cannot be looked at, and why."""


def find(settings: LoadSettings, environ: Mapping[str, str]) -> Shop:
    """Find the shop: the one that the settings name, the local stack, or the one in Docker Compose.

    Args:
        settings: May name another gateway and another Prometheus.
        environ: RUN_DIR; GATEWAY_PORT and PROMETHEUS_PORT as for `docker compose up`; DATABASE_HOST, DATABASE_PORT,
            DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD_FILE for a database elsewhere.

    Raises:
        LoadError: The local stack cannot be spoken to, the gateway is another machine, or a variable is wrong.
    """
    folder = run_dir(environ)
    elsewhere = environ.get("DATABASE_HOST")
    if not elsewhere and (local := _local_stack(folder)):
        host = f"http://127.0.0.1:{local.gateway_port}"
        prometheus = f"http://127.0.0.1:{local.prometheus_port}" if local.telemetry else None
        targets = folder / "conf" / "prometheus" / "targets-load.json" if local.telemetry else None
        ask = orderdb.of_stack(local, _SECONDS)
    else:
        host = f"http://127.0.0.1:{environ.get('GATEWAY_PORT') or 80}"
        prometheus, targets = f"http://127.0.0.1:{environ.get('PROMETHEUS_PORT') or 9090}", None
        ask = _from(environ) if elsewhere and settings.books else orderdb.in_container(_SECONDS)
    found, host = host, (settings.host or host).rstrip("/")
    if not settings.allow_remote:
        refuse_remote(host)
    here, notes = _same(host, found), []
    if not here and settings.books and not elsewhere:
        notes.append(f"{host} is not the shop that runs here, so the books are not checked: name its DATABASE_HOST.")
    if not here and not settings.prometheus:
        notes.append(f"{host} is not the shop that runs here, so its services' view is missing: name its --prometheus.")
    return Shop(
        host=host,
        ask=ask if settings.books and (here or elsewhere) else None,
        prometheus=settings.prometheus or (prometheus if here else None),
        targets=targets if here else None,
        folder=settings.results or folder / "load",
        notes=tuple(notes),
    )


def _same(one: str, other: str) -> bool:
    """Tell whether two addresses are of one gateway, by whatever name of this machine."""
    if one == other:
        return True
    ports = {urlsplit(url).port or (443 if urlsplit(url).scheme == "https" else 80) for url in (one, other)}
    return len(ports) == 1 and _is_here(one) and _is_here(other)


def _is_here(url: str) -> bool:
    try:
        refuse_remote(url)
    except LoadError:
        return False
    return True


def _local_stack(folder: Path) -> Settings | None:
    from local.supervision import Supervisor  # noqa: PLC0415  # the image of the load test has no supervisor

    return Settings.of_running(folder) if Supervisor.find(folder) else None


def refuse_remote(host: str) -> None:
    """Refuse a host that is not this machine: load on somebody else's is an attack.

    Raises:
        LoadError: It is another machine, or none.
    """
    name = urlsplit(host).hostname
    if not name:
        raise LoadError(f"{host} is no address: write it as http://127.0.0.1:8080.")
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(name, None)}
    except OSError as error:
        raise LoadError(f"{name} is not known here: {error.strerror}.") from error
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses):
        raise LoadError(f"{host} is another machine: --allow-remote, if it is yours and its people know.")


def _from(environ: Mapping[str, str]) -> Ask:
    port, password_file = environ.get("DATABASE_PORT") or "5433", environ.get("DATABASE_PASSWORD_FILE")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise LoadError(f"DATABASE_PORT is {port!r} and has to be a port's number.")
    if not password_file:
        raise LoadError("DATABASE_PASSWORD_FILE is missing: DATABASE_HOST needs a file with the user's password.")
    return orderdb.connecting(
        host=environ["DATABASE_HOST"],
        port=int(port),
        dbname=environ.get("DATABASE_NAME") or orderdb.OWNER,
        user=environ.get("DATABASE_USER") or orderdb.OWNER,
        password=lambda: Path(password_file).read_text(encoding="utf-8").strip(),
        seconds=_SECONDS,
    )
