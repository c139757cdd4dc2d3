"""Limits how long, and in how many threads, a service waits for clients that read or send slowly."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ANSWER_SECONDS = 5.0  # for a client to read a piece that does not fit into the socket's buffer
_PIECE = 64 * 1024  # per piece, so a large answer may take long, but not at a byte a second
_SEND_BUFFER = 128 * 1024  # most answers fit; by default the kernel lets it grow to megabytes


class Stalled:
    """The sockets whose clients make a thread wait. If there are too many, the one that has waited longest is closed.

    Args:
        most: The most sockets at the same time.
        on_cut: Is called with the reason when a socket is closed.
    """

    def __init__(self, most: int, on_cut: Callable[[str], None]) -> None:
        self._most = most
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._sockets: dict[socket.socket, str] = {}

    @contextmanager
    def waiting(self, stalled: socket.socket, reason: str) -> Iterator[None]:
        """Register a socket while the block waits for its client. The block itself has to set the time limit.

        Args:
            stalled: The socket.
            reason: The reason to count if it is closed.
        """
        with self._lock:
            if len(self._sockets) >= self._most:
                longest = next(iter(self._sockets))
                self._on_cut(self._sockets.pop(longest))
                with suppress(OSError):
                    longest.shutdown(socket.SHUT_RDWR)  # so its thread gets an error instead of waiting
            self._sockets[stalled] = reason
        try:
            yield
        except TimeoutError:
            self._on_cut(reason)
            raise BrokenPipeError(errno.EPIPE, "the answer is not taken") from None  # gunicorn handles this error
        finally:
            with self._lock:
                self._sockets.pop(stalled, None)


class ClientSocket(socket.socket):
    """A connection's socket.

    Attributes:
        received: The part of the current request that has arrived.
        stalled: The sockets whose clients make a thread wait.
        awaits_continue: Whether the client waits for `100 Continue`, or for an answer, before it sends the body.
    """

    def __init__(self, accepted: socket.socket, stalled: Stalled) -> None:
        super().__init__(fileno=accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.received = bytearray()
        self.stalled = stalled
        self.awaits_continue = False

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all data, piece by piece. The client has to read each piece within the time limit."""
        self.awaits_continue = False
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.send(rest, flags | socket.MSG_DONTWAIT) :]
                if not rest:
                    return
            except BlockingIOError:
                pass
            with self.stalled.waiting(self, "unread"):
                self.settimeout(_ANSWER_SECONDS)
                super().sendall(rest[:_PIECE], flags)
            rest = rest[_PIECE:]
            self.settimeout(None)
