"""gunicorn's worker with threads, for clients that may be slow, silent or hostile.

gunicorn's own gives each connection a thread at once, which reads and writes for as long as the client likes. If as
many clients as there are threads send half a request, nobody is served. Here a thread gets a request when all of it has
come. Until then the main thread waits, on all connections at once, with a time limit.

Four other files do a part each: `stopping` stops without a reset, `staying` lets threads stay with their connections,
`reading` reads requests whole, `answering` cuts off clients that do not read. The worker speaks plain HTTP/1, as
gunicorn does when nothing else is set. TLS is the gateway's.

What this file, `reading` and `answering` give is no speed: with `StayingWorker` instead, a request takes as much CPU
(docs/performance.md has the numbers and the command). They keep the promise that slow and hostile clients hold nobody
up, and get a problem as an answer; tests/servicekit/test_worker.py checks it.

waitress reads requests whole too, but a request that comes byte by byte may take for ever, HTTP/9.9 counts as 1.0,
`//parcels/1` as `/parcels/1`, a folded header, a control character in the target, and a length beside chunks are taken,
refusals are plain text, and nothing stops gracefully. Each would be code of ours again.
"""

import errno
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from servicekit.process import apps
from servicekit.process.answering import ClientSocket, Stalled
from servicekit.process.reading import MAX_HEAD, PIECE, Incomplete, Requests, status_of
from servicekit.process.staying import StayingWorker

SPARE_THREADS = 4
"""For the probes."""
STALLED_THREADS = 32
"""Those that wait for a client to read its answer."""

_REQUEST_SECONDS = 10.0  # from the first wait for a request to its last byte
_CLOSING_SECONDS = 2.0  # for a client to read its last answer and close
_MAX_DRAINED = 2 * MAX_HEAD  # of what nobody reads, before the connection is closed
_MAX_HELD = 16 * 1024 * 1024  # of requests that have come in part, together


class Worker(StayingWorker):
    """gunicorn's worker with threads, with these differences beside a clean stop and threads that stay.

    - A request that has come in part holds no thread. What does not come within a time limit is refused. With more
      connections than there may be, the one that has waited longest is closed.
    - What is no request gets its answer from the app: gunicorn's own is HTML, and in no trace and no metric.
    - A connection that is to be closed holds nobody up. gunicorn's main thread waits up to 2 s for the client to close,
      and does nothing else meanwhile (docs/upstream.md).
    """

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        self._stalled = Stalled(STALLED_THREADS, lambda: self._server_side.connection_cut("unread"))
        # What the main thread waits for, and until when: requests, and clients that are to close.
        self._waiting: dict[Any, float] = {}
        self._held = 0
        self._next_sweep = 0.0
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application; gunicorn calls this in the worker's process."""
        super().load_wsgi()
        self._server_side = apps.server_side(self.wsgi)

    def accept(self, listener: Any) -> None:
        """Take a connection; if that was the last that may be there, close another."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._make_room()
        if self.alive and self.nr_conns >= self.worker_connections:
            self._make_room()

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread; a new one when something has come."""
        if conn.parser is not None:
            super().enqueue_req(conn)
            return
        conn.sock = ClientSocket(conn.sock, self._stalled)
        conn.parser = Requests(self.cfg, conn.sock, conn.client)
        conn.initialized = True
        self._await_request(conn)

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread of the pool; see gunicorn's for what comes back."""
        try:
            return super().handle(conn)
        except Incomplete:
            return Incomplete

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is no request, as the app answers every error; gunicorn calls this in the thread."""
        del req, addr
        status = status_of(exc)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling request", exc_info=exc)
        with suppress(OSError):  # the client may have left, or take nothing
            client.send(self._server_side.refusal(status, bytes(client.received)), socket.MSG_DONTWAIT)

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Take a connection back from its thread."""
        outcome = False if fs.cancelled() or fs.exception() else fs.result()
        if outcome is Incomplete:
            self._await_request(conn)
        elif outcome:
            super().finish_request(conn, fs)
        else:
            self._end(conn)

    def murder_pending(self) -> None:
        """See who let us wait for too long; gunicorn calls this after each turn of its loop."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + 0.5
        for conn in [conn for conn, deadline in self._waiting.items() if deadline <= now]:
            if conn.is_ending or not conn.sock.received:
                self._close(conn, None if conn.is_ending else "silent")
            else:
                self._leave(conn)
                self.enqueue_req(conn)  # which finds that it is late, and says so

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self._waiting:
            conn.parser.deadline = self._waiting[conn] = min(self._waiting[conn], deadline)

    def _await_request(self, conn: Any) -> None:
        """Wait for the request, or the rest of it."""
        conn.is_ending = False
        if conn.parser.deadline is None:
            conn.parser.deadline = time.monotonic() + (_REQUEST_SECONDS if self.alive else _CLOSING_SECONDS)
        self._wait(conn, conn.parser.deadline, self._more_came)
        while self._held > _MAX_HELD:
            self._make_room()

    def _more_came(self, conn: Any, _socket: Any) -> None:
        self._leave(conn)
        self.enqueue_req(conn)

    def _end(self, conn: Any) -> None:
        """Close a connection when its client has read the last answer: what it sent and nobody read would reset it."""
        conn.is_ending = True
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._discard(conn)
            return
        self._wait(conn, time.monotonic() + _CLOSING_SECONDS, self._drain)

    def _drain(self, conn: Any, _socket: Any) -> None:
        try:
            more = conn.sock.recv(PIECE)
        except OSError:
            more = b""
        conn.drained += len(more)
        if not more or conn.drained > _MAX_DRAINED:
            self._close(conn)

    def _wait(self, conn: Any, deadline: float, then: Callable[[Any, Any], None]) -> None:
        conn.sock.settimeout(0)
        conn.drained = 0
        self._held += len(conn.sock.received)
        self._waiting[conn] = deadline
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(then, conn))

    def _leave(self, conn: Any) -> None:
        del self._waiting[conn]
        self._held -= len(conn.sock.received)
        self.poller.unregister(conn.sock)

    def _close(self, conn: Any, reason: str | None = None) -> None:
        self._leave(conn)
        self._discard(conn)
        if reason is not None:
            self._server_side.connection_cut(reason)

    def _discard(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def _make_room(self) -> None:
        """Close the connection that has waited longest: for its request, or else between two."""
        if self._waiting:
            self._close(min(self._waiting, key=self._waiting.__getitem__), "crowded")
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._discard(conn)
            self._server_side.connection_cut("crowded")
