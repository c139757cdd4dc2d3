"""Stops gunicorn's worker with threads so that no connection is reset.

gunicorn's own leaves its socket open until it ends. The kernel goes on accepting connections, which nobody serves, and
resets them when the worker is gone. For a gateway in front that is a request that may have had an effect, so it must
not send it to another replica. A refused connection it may. docs/upstream.md has this as a report for gunicorn.
"""

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

_SO_ATTACH_FILTER = 26  # Linux; the socket module does not have it


class StoppingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker with threads, which on SIGTERM refuses new connections at once and serves all that it has."""

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # the signature is gunicorn's
        """Start or stop accepting connections; when stopping for good, take in the queue and close it."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        while self.sockets:  # gunicorn calls this more than once, where SIGTERM comes at the right moment
            listener = self.sockets.pop()
            if not _is_shared(listener):
                _let_nobody_in(listener)
            while self._accepts(listener):
                pass
            listener.close()

    def handle_quit(self, _sig: int, _frame: Any) -> None:
        """End at once (SIGQUIT, and SIGINT to the master), from the main loop.

        gunicorn's own ends here, in the signal's handler. If the signal comes while the main thread gives the pool a
        task, it waits for a lock that it holds itself, or the pool loses sight of a thread that Python then waits for
        at exit; until the master kills the worker (docs/upstream.md).
        """
        self.alive = False
        self.method_queue.defer(self._quit)

    def _quit(self) -> None:
        self.cfg.worker_int(self)
        sys.exit(0)

    def _accepts(self, listener: Any) -> bool:
        before = self.nr_conns
        self.accept(listener)
        return bool(self.nr_conns != before)  # fewer: another was closed to make room, so there may be more to accept


def _is_shared(listener: Any) -> bool:
    """Whether somebody else has the socket too, or may have.

    gunicorn's master closes its own before it ends its workers. When it reloads, or replaces one worker, it keeps it
    for the next. Two others may have it: a new master that the old one started, and systemd.
    """
    ours, parent = os.fstat(listener.fileno()), os.getppid()
    try:
        siblings = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii").split()
        for process in {"1", str(parent), *siblings} - {str(os.getpid())}:
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    if os.path.samestat(fd.stat(), ours):
                        return True
    except OSError:  # a process has ended, or is another user's
        return True
    return False


def _let_nobody_in(listener: Any) -> None:
    """Have the kernel ignore who wants to connect, or it would reset whom it let in after the last look at the queue.

    Their systems ask again after a second, and are refused. It is the socket that does so, in whatever process.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # one instruction: keep 0 bytes
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
