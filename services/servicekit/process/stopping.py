"""Stops gunicorn's worker with threads so that no connection is reset.

gunicorn's own leaves its socket open until it ends. The kernel goes on accepting connections, which nobody serves, and
resets them when the worker is gone. For a gateway in front that is a request that may have had an effect, so it must
not send it to another replica. A refused connection it may. docs/upstream.md has this as a report for gunicorn.
"""

import sys
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class StoppingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker with threads, which on SIGTERM refuses new connections at once and serves all that it has."""

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # the signature is gunicorn's
        """Start or stop accepting connections; when stopping for good, take in the queue and close it."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        while self.sockets:  # gunicorn calls this more than once, where SIGTERM comes at the right moment
            listener = self.sockets.pop()
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
