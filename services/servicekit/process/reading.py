"""Reads whole requests, head and body, without blocking, so that no thread waits for a slow client.

gunicorn's parser reads from a blocking socket, and reads the body only when the app asks for it. Here the received
bytes are kept until they contain a complete request. Until then the parser raises `Incomplete`.

A body larger than `MAX_BODY` is not kept. The app gets its request at once, and may reject it by its length. If the app
reads the body instead, its thread waits for the client, which has to send each piece within a time limit.
"""

import io
import socket
import time
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from werkzeug.exceptions import ClientDisconnected, RequestTimeout, abort

from servicekit.config import MAX_BODY
from servicekit.process.answering import ClientSocket

MAX_HEAD = 64 * 1024  # twice the limit of the gateway
PIECE = 64 * 1024

_PIECE_SECONDS = 10.0  # for a client to send a piece of a body that the app reads itself
_MAX_FRAMING = 32 * 1024  # sizes and extensions of chunks
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MAX_REQUEST = MAX_HEAD + MAX_BODY + _MAX_FRAMING


class Incomplete(BaseException):  # gunicorn treats every Exception as a bad request
    """The request is not complete yet."""


class _Late(errors.ParseException):  # type: ignore[misc]  # gunicorn has no types
    """The rest of the request did not come in time."""


class _TooLarge(errors.ParseException):  # type: ignore[misc]
    """A chunked body has more framing than content, or trailers without end."""


class _Unreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads the received bytes, and keeps them until the request is complete."""

    def __init__(self, sock: ClientSocket) -> None:
        super().__init__(sock)
        self.most: int | None = None
        self.is_open = False  # whether the app reads the rest of a body that is too large to keep
        self._patience = _PIECE_SECONDS

    def chunk(self, size_hint: int | None = None) -> bytes:
        size = min(max(size_hint or 0, self.mxchunk), PIECE)
        if self.most is None:
            return self._wait_for(size) if self.is_open else b""  # the request was complete
        received: bytearray = self.sock.received
        if len(received) > self.most:
            raise errors.LimitRequestHeaders("too much")
        try:
            data: bytes = self.sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise Incomplete from None
        received += data
        return data

    def open(self) -> None:
        """Let the app read the rest."""
        self.is_open = True
        self._patience = _PIECE_SECONDS

    def _wait_for(self, size: int) -> bytes:
        """Wait for more data in the app's thread. The time limit does not include the app's own time."""
        sock: ClientSocket = self.sock
        if sock.awaits_continue:
            util.write(sock, _CONTINUE)
        started = time.monotonic()
        try:
            data = sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            data = self._receive_in_time(size)
        if not data:
            raise ClientDisconnected  # the body is incomplete
        regained = len(data) / PIECE * _PIECE_SECONDS
        self._patience = min(self._patience - (time.monotonic() - started) + regained, _PIECE_SECONDS)
        return data

    def _receive_in_time(self, size: int) -> bytes:
        sock: ClientSocket = self.sock
        with sock.stalled.waiting(sock, "crowded"):
            try:
                sock.settimeout(max(self._patience, 0.001))
                return sock.recv(size)
            except TimeoutError:
                raise RequestTimeout from None
            except OSError:
                raise ClientDisconnected from None
            finally:
                sock.settimeout(None)


class _Rest:
    """Tells whether the rest of a body has arrived, without parsing the earlier bytes again.

    A head may have thousands of fields, and a body thousands of chunks. They must not be parsed anew for each byte of a
    client that sends byte by byte. The parser validates them when everything has arrived.

    Args:
        start: The position in the received bytes at which the body starts.
        length: Its length; None if it is chunked.
    """

    def __init__(self, start: int, length: int | None) -> None:
        self._next = start + (length or 0)  # the end of the body, or the next chunk
        self._chunked = length is None
        self._content = 0

    def has_come(self, received: bytearray) -> bool:
        """Whether the body is complete, too large, or invalid."""
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


class Requests(RequestParser):  # type: ignore[misc]
    """Yields the requests of a connection when they are complete; until then it raises `Incomplete`.

    Attributes:
        deadline: The time by which the current request has to be complete; None if none is incomplete.
    """

    def __init__(self, cfg: Any, sock: ClientSocket, client: Any) -> None:
        super().__init__(cfg, sock, client)
        self.unreader: Any = _Unreader(sock)
        self.deadline: float | None = None
        self._socket = sock
        self._rest: _Rest | None = None  # of the body, once the head has arrived
        self._continued = False  # whether `100 Continue` was sent

    def __next__(self) -> Any:
        unreader = self.unreader
        self._socket.received[:] = unreader.buf.getvalue()
        unreader.is_open = False
        try:
            self._receive_rest()
            unreader.most = MAX_HEAD
            request = super().__next__()
            unreader.most = _MAX_REQUEST
            self._receive_body(request)
        except Incomplete:
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise _Late from None
            # The parser starts again from the first byte when more of the head has arrived, or all of the body. So does
            # the search for the start of the next request.
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
            more = self.unreader.chunk(PIECE)
            if not more:
                return  # the client has closed the connection; the parser notices
            self.unreader.buf.write(more)

    def _receive_body(self, request: Any) -> None:
        expects, request._expected_100_continue = request._expected_100_continue, False  # noqa: SLF001  # see wsgi.create
        length = getattr(request.body.reader, "length", None)
        if length == 0:
            return
        if length is not None and length > MAX_BODY:
            self._socket.awaits_continue = expects
            self._let_read(request)
            return
        start = len(self._socket.received) - len(self.unreader.buf.getvalue())
        try:
            body = request.body.read(MAX_BODY + 1)
        except Incomplete:
            self._rest = _Rest(start, length)
            if expects and not self._continued:
                self._continued = True
                util.write(self._socket, _CONTINUE)
            raise
        except errors.LimitRequestHeaders:
            raise _TooLarge from None
        if length is not None and len(body) < length:
            raise errors.NoMoreData  # the client has closed the connection within a body
        if len(body) > MAX_BODY:
            self._let_read(request)
        request.body.buf.write(body)

    def _let_read(self, request: Any) -> None:
        """Let the app read the rest. If it answers without reading it, the connection is closed."""
        self.unreader.open()
        reader, asked = request.body.reader, request.should_close
        parse = reader.read

        def read(size: int) -> Any:
            try:
                return parse(size)
            except errors.ParseException as error:
                abort(status_of(error))

        def should_close() -> bool:
            if reader.length if hasattr(reader, "length") else reader.parser is not None:
                request.force_close()
            return bool(asked())

        reader.read = read
        request.should_close = should_close


_STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (errors.InvalidResponseHeader, HTTPStatus.INTERNAL_SERVER_ERROR),  # our error, though a subclass of clients' errors
    (errors.InvalidResponseHeaderName, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.ConfigurationProblem, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (_Late, HTTPStatus.REQUEST_TIMEOUT),
    (_TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
)


def status_of(error: Exception) -> HTTPStatus:
    """Return the HTTP status for an invalid request."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
