"""Is a port free, and if not, who has it."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import time
from itertools import chain
from typing import TYPE_CHECKING

import psutil

from local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from local.parts import Part


def check(parts: Sequence[Part], patience_seconds: float = 0) -> None:
    """Make sure that each part can have its ports.

    Args:
        parts: The parts about to start.
        patience_seconds: How long to wait for those who hold a port and may be about to end.

    Raises:
        LocalError: Ports are taken or forbidden; the sentence says which, by whom and what to do.
    """
    deadline = time.monotonic() + patience_seconds
    wanted = [(setting, port) for part in parts for setting, port in part.ports.items()]
    ours = {port for _, port in wanted}
    taken, choices = [], []
    for setting, port in wanted:
        while error := _bind_error(port):
            if error == errno.EACCES:
                raise LocalError(
                    f"Port {port} is only for root: choose one above 1023, "
                    f"for example with {setting}={_other(8079, ours)} make up."
                )
            if time.monotonic() >= deadline:
                ours.add(other := _other(port, ours))
                taken.append(f"Port {port} is in use{_holder(port)}")
                choices.append(f"{setting}={other}")
                break
            time.sleep(0.05)
    if taken:
        raise LocalError(f"{'; '.join(taken)}: stop that, or choose otherwise with {' '.join(choices)} make up.")


def free(count: int) -> list[int]:
    """Find ports that nothing listens on, and that the kernel gives to no outgoing connection.

    Below 28,000 the tests choose for themselves (`tests/fixtures/ports.py`).
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(28_000, 32_000)
        if not _bind_error(port):
            found.add(port)
    return list(found)


def _other(port: int, ours: Collection[int]) -> int:
    """Find a free port near one, and none of ours."""
    near = chain(range(port + 1, 65536), range(1024, port))
    return next(other for other in near if other not in ours and not _bind_error(other))


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
