"""Lets a thread stay with its connection between two requests.

gunicorn's own worker hands the connection back to the main thread, which waits for the next request and finds a thread
for it: two more threads to wake for each request, which compete for the interpreter's lock. Services have few callers,
which keep their connections and use them all the time.

docs/performance.md has what it gives by itself, measured beside gunicorn's own.
"""

import os
import select
from typing import Any

from servicekit.process.stopping import StoppingWorker

STAYING_THREADS = 100
"""Those that stay with an idle connection, or there would be none left to do the work of others."""


class StayingWorker(StoppingWorker):
    """gunicorn's worker with threads, which stops cleanly, and whose threads stay with their connections."""

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        self._stopping = os.eventfd(0)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: who waits for a next request stops waiting."""
        super().handle_exit(sig, frame)
        os.eventfd_write(self._stopping, 1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once: the process waits for its threads, and these for no next request."""
        os.eventfd_write(self._stopping, 1)
        super().handle_quit(sig, frame)

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread of the pool; see gunicorn's for what comes back."""
        while True:
            kept = super().handle(conn)
            # With more connections than that, the main thread waits for requests on all of them at once.
            if kept is not True or self.nr_conns > STAYING_THREADS:
                return kept
            if not conn.parser.unreader.buf.getvalue() and not self._next_request(conn):
                # When stopping, the main thread ends it; idle for too long, it is closed.
                return self.alive is False

    def _next_request(self, conn: Any) -> bool:
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        poll.register(self._stopping, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self.cfg.keepalive * 1000)}
        return bool(ready) and self._stopping not in ready
