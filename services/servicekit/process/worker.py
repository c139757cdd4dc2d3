"""gunicorn's worker with threads, for clients that may be slow, silent or hostile.

gunicorn's own gives each connection a thread at once, which reads and writes for as long as the client likes: as many
half-sent requests as there are threads, and nobody is served. Here a thread gets a request when all of it has come,
head and body. The main thread waits for the rest, on all connections at once, and for so long only.

It speaks plain HTTP/1, as gunicorn does when nothing else is set. TLS is the gateway's.
"""

import errno
import io
import os
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import ThreadWorker

from servicekit.config import MAX_BODY

SPARE_THREADS = 4
"""For the probes."""
STAYING_THREADS = 100
"""Those that stay with an idle connection, or there would be none left to do the work of others."""
STALLED_THREADS = 32
"""Those that wait for a client to read its answer."""

_REQUEST_SECONDS = 10.0  # from the first wait for a request to its last byte
_ANSWER_SECONDS = 5.0  # for a client to take what does not fit into the socket's buffer
_CLOSING_SECONDS = 2.0  # for a client to read its last answer and close
_MAX_HEAD = 64 * 1024  # twice what the gateway lets through
_MAX_FRAMING = 32 * 1024  # sizes and extensions of chunks
_MAX_REQUEST = _MAX_HEAD + MAX_BODY + _MAX_FRAMING
_MAX_DRAINED = 2 * _MAX_HEAD  # of what nobody reads, before the connection is closed
_MAX_HELD = 16 * 1024 * 1024  # of requests that have come in part, together
_SEND_BUFFER = 128 * 1024  # most answers fit; the kernel would let it grow to megabytes
_PIECE = 64 * 1024


class _Incomplete(BaseException):  # gunicorn takes every Exception for a bad request
    """There is more to come of the request."""


class _Late(errors.ParseException):  # type: ignore[misc]  # gunicorn has no types
    """The rest of the request did not come in time."""


class _TooLarge(errors.ParseException):  # type: ignore[misc]
    """A chunked body has more framing than content, or trailers without end."""


class _Stalled:
    """The sockets whose client does not take its answer: so many at most, or the one that waits longest is cut off.

    Args:
        most: How many.
        on_cut: Is told when one is cut off.
    """

    def __init__(self, most: int, on_cut: Callable[[], None]) -> None:
        self._most = most
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._sockets: dict[socket.socket, None] = {}

    @contextmanager
    def waiting(self, stalled: socket.socket) -> Iterator[None]:
        """Wait for the client of this socket, in the block, which has a time limit of its own."""
        with self._lock:
            if len(self._sockets) >= self._most:
                longest = next(iter(self._sockets))
                del self._sockets[longest]
                self._on_cut()
                with suppress(OSError):
                    longest.shutdown(socket.SHUT_RDWR)  # its thread stops waiting, with an error
            self._sockets[stalled] = None
        try:
            yield
        except TimeoutError:
            self._on_cut()
            raise BrokenPipeError(errno.EPIPE, "the answer is not taken") from None  # gunicorn's sign for it
        finally:
            with self._lock:
                self._sockets.pop(stalled, None)


class _Socket(socket.socket):
    """A connection's socket.

    Attributes:
        received: What has come of the request at hand.
    """

    def __init__(self, accepted: socket.socket, stalled: _Stalled) -> None:
        super().__init__(fileno=accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.received = bytearray()
        self._stalled = stalled

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all, and wait for the client to take it, but not for long."""
        try:
            sent = self.send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        with self._stalled.waiting(self):
            self.settimeout(_ANSWER_SECONDS)
            super().sendall(memoryview(data)[sent:], flags)
        self.settimeout(None)


class _Unreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads what has come, and keeps it until the request is whole."""

    def __init__(self, sock: _Socket) -> None:
        super().__init__(sock)
        self.most: int | None = None

    def chunk(self, size_hint: int | None = None) -> bytes:
        size = min(max(size_hint or 0, self.mxchunk), _PIECE)
        received: bytearray = self.sock.received
        if self.most is None:  # a body that nobody wanted is thrown away
            if self.sock.gettimeout() is None:
                self.sock.settimeout(_REQUEST_SECONDS)
            data: bytes = self.sock.recv(size)
            return data
        if len(received) > self.most:
            raise errors.LimitRequestHeaders("too much")
        try:
            data = self.sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise _Incomplete from None
        received += data
        return data


class _Rest:
    """Says whether the rest of a body has come, without parsing again what came before.

    A head may have thousands of fields and a body thousands of chunks: a client that sends byte by byte must not have
    them parsed for each byte. Whether they are right is for the parser to say, when all is there.

    Args:
        start: Where in the received bytes the body starts.
        length: Its length; None if it comes in chunks.
    """

    def __init__(self, start: int, length: int | None) -> None:
        self._next = start + (length or 0)  # the end of the body, or the next chunk
        self._chunked = length is None
        self._content = 0

    def has_come(self, received: bytearray) -> bool:
        """Whether all has come, or more than is allowed, or something that cannot be right."""
        if not self._chunked:
            return len(received) >= self._next
        while (line_end := received.find(b"\r\n", self._next)) >= 0:
            digits = received[self._next : line_end].partition(b";")[0].rstrip(b" \t")
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                return True
            size = int(digits, 16)
            if size == 0:
                return received.find(b"\r\n\r\n", line_end) >= 0
            start = line_end + 2
            end = start + size + 2
            too_large = self._content + min(size, len(received) - start) > MAX_BODY
            if too_large or (end <= len(received) and received[end - 2 : end] != b"\r\n"):
                return True
            if end > len(received):
                return False
            self._content += size
            self._next = end
        return False


class _Requests(RequestParser):  # type: ignore[misc]
    """The requests of a connection, each when all of it has come; until then `_Incomplete`.

    Attributes:
        deadline: When the request at hand has to be there; None if nobody waits for the rest of one.
    """

    def __init__(self, cfg: Any, sock: _Socket, client: Any) -> None:
        super().__init__(cfg, sock, client)
        self.unreader: Any = _Unreader(sock)
        self.deadline: float | None = None
        self._socket = sock
        self._rest: _Rest | None = None  # of the body, when its head has come
        self._continued = False  # whether the client knows that it may send the body

    def __next__(self) -> Any:
        unreader = self.unreader
        self._socket.received[:] = unreader.buf.getvalue()
        try:
            self._receive_rest()
            unreader.most = _MAX_HEAD
            request = super().__next__()
            unreader.most = _MAX_REQUEST
            self._receive_body(request)
        except _Incomplete:
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise _Late from None
            # The parser begins anew when there is more of the head, or all of the body. So does finding out where the
            # next request begins.
            unreader.buf = io.BytesIO()
            unreader.buf.write(self._socket.received)
            self.mesg = None
            raise
        finally:
            unreader.most = None
        self.deadline = None
        self._rest = None
        self._continued = False
        return request

    def _receive_rest(self) -> None:
        received = self._socket.received
        self.unreader.most = _MAX_REQUEST
        while self._rest is not None and len(received) <= _MAX_REQUEST and not self._rest.has_come(received):
            more = self.unreader.chunk(_PIECE)
            if not more:
                return  # the client has left, which the parser finds too
            self.unreader.buf.write(more)

    def _receive_body(self, request: Any) -> None:
        expects, request._expected_100_continue = request._expected_100_continue, False  # noqa: SLF001  # see wsgi.create
        length = getattr(request.body.reader, "length", None)
        if length == 0:
            return
        if length is not None and length > MAX_BODY:
            request.force_close()  # or gunicorn's thread would wait for what is announced
            return  # too much: the app says so by its length
        start = len(self._socket.received) - len(self.unreader.buf.getvalue())
        try:
            body = request.body.read(MAX_BODY + 1)
        except _Incomplete:
            self._rest = _Rest(start, length)
            if expects and not self._continued:
                self._continued = True
                util.write(self._socket, b"HTTP/1.1 100 Continue\r\n\r\n")
            raise
        except errors.LimitRequestHeaders:
            raise _TooLarge from None
        if length is not None and len(body) < length:
            raise errors.NoMoreData  # the client has left: half a body is no request
        if len(body) > MAX_BODY:
            request.force_close()
        request.body.buf.write(body)


_STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (errors.InvalidResponseHeader, HTTPStatus.INTERNAL_SERVER_ERROR),  # ours, though a kind of the clients' errors
    (errors.InvalidResponseHeaderName, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.ConfigurationProblem, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (_Late, HTTPStatus.REQUEST_TIMEOUT),
    (_TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, with these differences.

    A request that has come in part holds no thread, and neither does a connection that is to be closed. What does not
    come within a time limit is refused. When there are more connections than there may be, the one that has waited
    longest is closed.

    What is no request gets its answer from the app: gunicorn's own is HTML, and in no trace and no metric.

    Told to stop, it refuses new connections at once and serves all that it has. gunicorn's own leaves its socket open
    until it ends. Connections that came meanwhile would be accepted by the kernel, never served, and reset: for a
    gateway in front that is a request that may have had an effect, so it can send it to no other replica. A refused
    connection it can.

    A thread stays with its connection between two requests. gunicorn's own hands it back to the main thread, which
    waits for the next request and finds a thread for it: for each request two more threads to wake, which quarrel about
    the interpreter's lock. Whoever calls here keeps few connections and uses them all the time.
    """

    def init_process(self) -> None:
        """Start; gunicorn calls this in the worker's process."""
        self._stopping = os.eventfd(0)
        self._stalled = _Stalled(STALLED_THREADS, lambda: self.wsgi.extensions["server"].connection_cut("unread"))
        # What the main thread waits for, and until when: requests, and clients that are to close.
        self._waiting: dict[Any, float] = {}
        self._held = 0
        self._next_sweep = 0.0
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: who waits for a next request stops waiting."""
        super().handle_exit(sig, frame)
        os.eventfd_write(self._stopping, 1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once: the process waits for its threads, and these for no next request."""
        os.eventfd_write(self._stopping, 1)
        super().handle_quit(sig, frame)

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
        conn.sock = _Socket(conn.sock, self._stalled)
        conn.parser = _Requests(self.cfg, conn.sock, conn.client)
        conn.initialized = True
        self._await_request(conn)

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread of the pool; see gunicorn's for what comes back."""
        try:
            while True:
                kept = super().handle(conn)
                # With more connections than that, the main thread waits for requests on all of them at once.
                if kept is not True or self.nr_conns > STAYING_THREADS:
                    return kept
                if not conn.parser.unreader.buf.getvalue() and not self._next_request(conn):
                    # When stopping, the main thread ends it; idle for too long, it is closed.
                    return self.alive is False
        except _Incomplete:
            return _Incomplete

    def _next_request(self, conn: Any) -> bool:
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        poll.register(self._stopping, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self.cfg.keepalive * 1000)}
        return bool(ready) and self._stopping not in ready

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is no request, as the app answers every error; gunicorn calls this in the thread."""
        del req, addr
        status = next((status for kind, status in _STATUSES if isinstance(exc, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Error handling request", exc_info=exc)
        with suppress(OSError):  # the client may have left, or take nothing
            client.send(self.wsgi.extensions["server"].refusal(status, bytes(client.received)), socket.MSG_DONTWAIT)

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Take a connection back from its thread."""
        outcome = False if fs.cancelled() or fs.exception() else fs.result()
        if outcome is _Incomplete:
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
            more = conn.sock.recv(_PIECE)
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
            self.wsgi.extensions["server"].connection_cut(reason)

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
            self.wsgi.extensions["server"].connection_cut("crowded")

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # the signature is gunicorn's
        """Start or stop accepting connections; when stopping for good, take in the queue and close it."""
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:
            waiting = self.nr_conns - 1
            while self.nr_conns != waiting:
                waiting = self.nr_conns
                self.accept(listener)
            listener.close()
