"""Stops gunicorn's worker with threads without resetting connections.

gunicorn's own worker leaves its socket open until it ends. Until then the kernel accepts connections that are never
served, and resets them at the end. A gateway must not repeat such a request at another replica, since it may have had
an effect. It may do so if the connection is refused. docs/upstream.md has a report about this for gunicorn.
"""

import sys
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class StoppingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker with threads; on SIGTERM it refuses new connections at once and serves the existing ones."""

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # the signature is gunicorn's
        """Start or stop accepting connections. When the worker stops, accept the queued ones, then close the socket."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        while self.sockets:  # gunicorn may call this twice, if SIGTERM comes at a certain moment
            listener = self.sockets.pop()
            while self._accepts(listener):
                pass
            listener.close()

    def handle_quit(self, _sig: int, _frame: Any) -> None:
        """Stop at once (SIGQUIT, and SIGINT to the master), from the main loop.

        gunicorn's own worker stops here, in the signal handler. If the signal comes while the main thread submits a
        task to the pool, the worker hangs until the master kills it: it waits for a lock that it holds itself, or
        Python waits at exit for a thread that the pool no longer knows (docs/upstream.md).
        """
        self.alive = False
        self.method_queue.defer(self._quit)

    def _quit(self) -> None:
        self.cfg.worker_int(self)
        sys.exit(0)

    def _accepts(self, listener: Any) -> bool:
        before = self.nr_conns
        self.accept(listener)
        return bool(self.nr_conns != before)  # fewer if another was closed to make room; there may be more to accept
