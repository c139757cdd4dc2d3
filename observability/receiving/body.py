"""The body of a request: unpacked, and read as an export request of OTLP/HTTP."""

import zlib
from collections.abc import Collection
from http import HTTPStatus

from flask import request
from google.protobuf.message import Message

from observability.receiving.messages import Malformed, read_json, read_protobuf

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_GZIP = 16 + zlib.MAX_WBITS


class Refused(Exception):
    """A request that is not taken: its status, why in a word for the metric, and in words for the sender."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def read_export(message: Message, max_bytes: int, kinds: Collection[str] = (PROTOBUF, JSON)) -> tuple[int, int]:
    """Fill the message from the request's body; give the body's size, unpacked, and how many records make no sense.

    Args:
        message: An empty export request.
        max_bytes: How large the body may be, unpacked.
        kinds: The media types that are taken.

    Raises:
        Refused: It is of another type, too large, or no export request.
    """
    if request.mimetype not in kinds:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", f"send {' or '.join(kinds)}")
    body = unpacked_body(max_bytes)
    malformed = 0
    try:
        if request.mimetype == JSON:
            malformed = read_json(body, message)
        else:
            read_protobuf(body, message)
    except Malformed:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is no valid export request") from None
    return len(body), malformed


def unpacked_body(max_bytes: int) -> bytes:
    """Undo the encoding of the request's body, but never make more of it than is allowed.

    Raises:
        Refused: It is larger, in another encoding than gzip, or not one whole gzip stream.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in {"identity", ""}:
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    if encoding != "gzip":
        # The Collector says 400 too.
        raise Refused(HTTPStatus.BAD_REQUEST, "encoding", "send it with gzip, or without a Content-Encoding")
    unzip = zlib.decompressobj(_GZIP)
    try:
        unpacked = unzip.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is not valid gzip") from None
    if len(unpacked) > max_bytes:
        raise _too_large(max_bytes)
    if not unzip.eof or unzip.unused_data:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "the body is not one whole gzip stream")
    return unpacked


def _too_large(max_bytes: int) -> Refused:
    message = f"a request may have {max_bytes} bytes, unpacked: send smaller batches"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)
