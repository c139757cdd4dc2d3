"""Simulates a bad network between two services, by a TCP proxy that delays data, loses it, or resets connections."""

import random
import socket
import struct
import threading
import time
from contextlib import suppress

_SLOW_SECONDS = 0.15
_RETRANSMITTED_SECONDS = 1.0
_SHARE = 0.25
_PAUSE_SECONDS = 0.1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Link:
    """A proxy on a free port of this machine, for as long as the process lives.

    Args:
        host: The host to which it forwards.
        port: The port to which it forwards.

    Attributes:
        url: Its own address.
        kind: What is wrong with it. `slow`: each piece of data takes 150 ms. `lossy`: one piece in four takes a second,
            as if it had to be retransmitted. `reset`: one piece in four resets the connection. `silent`: nothing
            arrives.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.kind = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(None)  # even if the process has set a default timeout
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # for example no free descriptor; try again later
                time.sleep(_PAUSE_SECONDS)
                continue
            try:
                far = socket.create_connection(self._to, timeout=1)
            except OSError:
                near.close()
                continue
            near.settimeout(None)
            far.settimeout(None)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), name="link", daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if self.kind == "silent":
                    continue  # until the caller gives up and closes the connection
                if not self._arrives():
                    for end in (one, other):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
            end.close()

    def _arrives(self) -> bool:
        """Wait for the simulated delay, and return whether the data arrives."""
        if self.kind == "slow":
            time.sleep(_SLOW_SECONDS)
        elif self.kind == "lossy" and random.random() < _SHARE:  # noqa: S311  # chance, not secrecy
            time.sleep(_RETRANSMITTED_SECONDS)
        return not (self.kind == "reset" and random.random() < _SHARE)  # noqa: S311
