"""A gunicorn worker in which a thread stays with its connection between two requests.

gunicorn's own worker gives the connection back to the main thread, which waits for the next request and then passes it
to a thread. So each request wakes two more threads, which compete for the interpreter's lock. Services have few callers
that keep their connections open and use them all the time.

docs/performance.md has a measurement of the gain compared with gunicorn's own worker.
"""

import os
import select
from typing import Any

from servicekit.process.stopping import StoppingWorker

STAYING_THREADS = 100
"""The most threads that stay with an idle connection; the others are left for new connections."""


class StayingWorker(StoppingWorker):
    """gunicorn's worker with threads, which stops cleanly, and whose threads stay with their connections."""

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        self._stopping = os.eventfd(0)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Start to stop: threads no longer wait for a next request."""
        super().handle_exit(sig, frame)
        os.eventfd_write(self._stopping, 1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once. The process waits for its threads, which no longer wait for a next request."""
        os.eventfd_write(self._stopping, 1)
        super().handle_quit(sig, frame)

    def handle(self, conn: Any) -> Any:
        """Serve a connection in a thread of the pool; returns what gunicorn's method returns."""
        while True:
            kept = super().handle(conn)
            # If there are more connections, the main thread waits for requests on all of them at once.
            if kept is not True or self.nr_conns > STAYING_THREADS:
                return kept
            if not conn.parser.unreader.buf.getvalue() and not self._next_request(conn):
                # When stopping, the main thread closes it; if it is idle for too long, it is closed here.
                return self.alive is False

    def _next_request(self, conn: Any) -> bool:
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        poll.register(self._stopping, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self.cfg.keepalive * 1000)}
        return bool(ready) and self._stopping not in ready
