"""gunicorn's worker with threads, for clients that may be slow, silent or hostile.

gunicorn's own worker gives each connection a thread at once, and this thread reads and writes without a time limit. If
as many clients as there are threads send half a request, nobody else is served. Here a thread gets a request only when
it is complete. Until then the main thread waits for all connections at once, with a time limit.

Four other files do a part each: `stopping` stops without resetting connections, `staying` lets threads stay with their
connections, `reading` reads whole requests, `answering` closes connections of clients that do not read. The worker
serves plain HTTP/1, as gunicorn does by default. The gateway terminates TLS.

This file, `reading` and `answering` do not make requests faster: with `StayingWorker`, a request takes as much CPU time
(docs/performance.md has the numbers and the command). They ensure that slow and hostile clients do not block others,
and are answered with problem+json; tests/servicekit/test_worker.py checks it.

waitress reads whole requests too. But it has no time limit for a request that comes byte by byte; it treats HTTP/9.9 as
1.0 and `//parcels/1` as `/parcels/1`; it accepts a folded header, a control character in the target, and a
Content-Length with chunks; it rejects requests in plain text; and it does not stop gracefully. Each of these would need
code of ours, too.
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
"""Threads for the probes."""
STALLED_THREADS = 32
"""The most threads that wait for a client to read its answer, or to send the rest of a large body."""

_REQUEST_SECONDS = 10.0  # from the first wait for a request to its last byte
_CLOSING_SECONDS = 2.0  # for a client to read its last answer and close
_MAX_DRAINED = 2 * MAX_HEAD  # unread bytes that are discarded before the connection is closed
_MAX_HELD = 16 * 1024 * 1024  # bytes of all incomplete requests together


class Worker(StayingWorker):
    """gunicorn's worker with threads, with these differences in addition to those of its base classes.

    - An incomplete request does not occupy a thread. If it is not complete within a time limit, it is rejected. If
      there are too many connections, the one that has waited longest is closed.
    - The app answers invalid requests. gunicorn's own answer is HTML, and appears in no trace and no metric.
    - Closing a connection does not block others. gunicorn's main thread waits up to 2 s for the client to close, and
      does nothing else meanwhile (docs/upstream.md).
    """

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        # The connections that the main thread waits for, with their deadlines: for requests, and for clients to close.
        self._waiting: dict[Any, float] = {}
        self._held = 0
        self._next_sweep = 0.0
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application; gunicorn calls this in the worker's process."""
        super().load_wsgi()
        self._server_side = apps.server_side(self.wsgi)
        self._stalled = Stalled(STALLED_THREADS, self._server_side.connection_cut)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Run one turn of the event loop, and skip events of connections that were closed during it.

        The list of ready connections is fixed at the start of a turn. Accepting a new connection may close one that is
        later in the list, to make room. Handling that one would end the worker, and reset all connections.
        """
        waited_for = self.poller.get_map()
        for key, _ in self.poller.select(timeout):
            if waited_for.get(key.fd) is key:
                key.data(key.fileobj)

    def accept(self, listener: Any) -> None:
        """Accept a connection; if the limit is reached, close another one."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._make_room()
        if self.alive and self.nr_conns >= self.worker_connections:
            self._make_room()

    def enqueue_req(self, conn: Any) -> None:
        """Pass a connection to a thread; a new connection only when it has sent something."""
        if conn.parser is not None:
            super().enqueue_req(conn)
            return
        conn.sock = ClientSocket(conn.sock, self._stalled)
        conn.parser = Requests(self.cfg, conn.sock, conn.client)
        conn.initialized = True
        self._await_request(conn)

    def handle(self, conn: Any) -> Any:
        """Serve a connection in a thread of the pool; returns what gunicorn's method returns."""
        try:
            return super().handle(conn)
        except Incomplete:
            return Incomplete

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer an invalid request, as the app answers every error; gunicorn calls this in the thread."""
        del req, addr
        status = status_of(exc)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling request", exc_info=exc)
        with suppress(OSError):  # the client may have gone, or does not read
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
        """Handle connections whose deadline has passed; gunicorn calls this after each turn of its loop."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + 0.5
        for conn in [conn for conn, deadline in self._waiting.items() if deadline <= now]:
            if conn.is_ending or not conn.sock.received:
                self._close(conn, None if conn.is_ending else "silent")
            else:
                self._leave(conn)
                self.enqueue_req(conn)  # the thread notices that it is late, and answers 408

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self._waiting:
            conn.parser.deadline = self._waiting[conn] = min(self._waiting[conn], deadline)

    def _await_request(self, conn: Any) -> None:
        """Wait for a request, or for the rest of one."""
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
        """Close a connection after its client has read the last answer. Otherwise unread data would reset it."""
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
        """Close the connection that has waited longest for a request; if there is none, an idle one."""
        if self._waiting:
            self._close(min(self._waiting, key=self._waiting.__getitem__), "crowded")
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._discard(conn)
            self._server_side.connection_cut("crowded")
