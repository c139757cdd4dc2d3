r"""Lets a thread stay with its connection between two requests.

gunicorn's own worker hands the connection back to the main thread, which waits for the next request and finds a thread
for it: two more threads to wake for each request, which compete for the interpreter's lock. Services have few callers,
which keep their connections and use them all the time.

What it gives by itself (`POST /orders/`, 8 clients, no telemetry, 2 cores; medians of 9 rounds in turns on 2026-11-29,
while other work ran on the machine, so make them again before you rely on them):

    the shop's worker, which is this one and more     1.00 of the orders/s   1.00 of the CPU an order
    `StayingWorker`                                   1.11 (0.69..1.39)      1.00 (0.90..1.21)
    `StoppingWorker`, so gunicorn's own but for stops 0.94 (0.58..1.32)      1.10 (0.88..1.38)

    python -m bench compare off \
        off,GUNICORN_CMD_ARGS=--worker-class=servicekit.process.staying.StayingWorker \
        off,GUNICORN_CMD_ARGS=--worker-class=servicekit.process.stopping.StoppingWorker
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
