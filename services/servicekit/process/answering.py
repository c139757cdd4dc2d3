"""Clients that a thread waits for: to read an answer, or to send a large body. Not for long, and not too many."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ANSWER_SECONDS = 5.0  # for a client to take a piece that does not fit into the socket's buffer
_PIECE = 64 * 1024  # so an answer may take as long as it is large, but not at a byte a second
_SEND_BUFFER = 128 * 1024  # most answers fit; the kernel would let it grow to megabytes


class Stalled:
    """The sockets whose client a thread waits for: so many at most, or the one that waits longest is cut off.

    Args:
        most: How many.
        on_cut: Is told when one is cut off, and why.
    """

    def __init__(self, most: int, on_cut: Callable[[str], None]) -> None:
        self._most = most
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._sockets: dict[socket.socket, str] = {}

    @contextmanager
    def waiting(self, stalled: socket.socket, reason: str) -> Iterator[None]:
        """Wait for the client of this socket, in the block, which has a time limit of its own.

        Args:
            stalled: The socket.
            reason: Why it is cut off, if it is.
        """
        with self._lock:
            if len(self._sockets) >= self._most:
                longest = next(iter(self._sockets))
                self._on_cut(self._sockets.pop(longest))
                with suppress(OSError):
                    longest.shutdown(socket.SHUT_RDWR)  # its thread stops waiting, with an error
            self._sockets[stalled] = reason
        try:
            yield
        except TimeoutError:
            self._on_cut(reason)
            raise BrokenPipeError(errno.EPIPE, "the answer is not taken") from None  # gunicorn's sign for it
        finally:
            with self._lock:
                self._sockets.pop(stalled, None)


class ClientSocket(socket.socket):
    """A connection's socket.

    Attributes:
        received: What has come of the request at hand.
        stalled: Those that a thread waits for.
        awaits_continue: Whether the client sends its body only when it is told to; an answer tells it as well.
    """

    def __init__(self, accepted: socket.socket, stalled: Stalled) -> None:
        super().__init__(fileno=accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.received = bytearray()
        self.stalled = stalled
        self.awaits_continue = False

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all, and wait for the client as long as it takes piece after piece, each in time."""
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
