"""Clients that do not read their answers: each holds a thread, but not for long, and not too many do."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ANSWER_SECONDS = 5.0  # for a client to take what does not fit into the socket's buffer
_SEND_BUFFER = 128 * 1024  # most answers fit; the kernel would let it grow to megabytes


class Stalled:
    """The sockets whose client does not take its answer: so many at most, or the one that waits longest is cut off.

    Args:
        most: How many.
        on_cut: Is told when one is cut off.
    """

    def __init__(self, most: int, on_cut: Callable[[], None]) -> None:
        self._most = most
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._sockets: dict[socket.socket, None] = {}

    @contextmanager
    def waiting(self, stalled: socket.socket) -> Iterator[None]:
        """Wait for the client of this socket, in the block, which has a time limit of its own."""
        with self._lock:
            if len(self._sockets) >= self._most:
                longest = next(iter(self._sockets))
                del self._sockets[longest]
                self._on_cut()
                with suppress(OSError):
                    longest.shutdown(socket.SHUT_RDWR)  # its thread stops waiting, with an error
            self._sockets[stalled] = None
        try:
            yield
        except TimeoutError:
            self._on_cut()
            raise BrokenPipeError(errno.EPIPE, "the answer is not taken") from None  # gunicorn's sign for it
        finally:
            with self._lock:
                self._sockets.pop(stalled, None)


class ClientSocket(socket.socket):
    """A connection's socket.

    Attributes:
        received: What has come of the request at hand.
    """

    def __init__(self, accepted: socket.socket, stalled: Stalled) -> None:
        super().__init__(fileno=accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.received = bytearray()
        self._stalled = stalled

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all, and wait for the client to take it, but not for long."""
        try:
            sent = self.send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        with self._stalled.waiting(self):
            self.settimeout(_ANSWER_SECONDS)
            super().sendall(memoryview(data)[sent:], flags)
        self.settimeout(None)
