"""Is a port free, and if not, who has it."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from typing import TYPE_CHECKING

import psutil

from local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.parts import Part


def check(parts: Iterable[Part], patience_seconds: float = 0) -> None:
    """Make sure that each part can have its port.

    Args:
        parts: The parts about to start.
        patience_seconds: How long to wait for those who hold a port and may be about to end.

    Raises:
        LocalError: A port is taken or forbidden; the sentence says by whom and what to do.
    """
    deadline = time.monotonic() + patience_seconds
    for part in parts:
        while error := _bind_error(part.port):
            if error == errno.EACCES:
                raise LocalError(
                    f"Port {part.port} is only for root: choose one above 1023, "
                    f"for example with {part.port_setting}=8080 make up."
                )
            if time.monotonic() >= deadline:
                other = next((port for port in range(part.port + 1, 65536) if not _bind_error(port)), 8080)
                raise LocalError(
                    f"Port {part.port} is in use{_holder(part.port)}: stop it, "
                    f"or choose another with {part.port_setting}={other} make up."
                )
            time.sleep(0.05)


def _bind_error(port: int) -> int | None:
    # As the servers do: connections of a stopped one that still fade away (TIME_WAIT) do not count.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno
    return None


def _holder(port: int) -> str:
    """Say who listens on a port, as far as this user may know."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return " by a process of another user"
