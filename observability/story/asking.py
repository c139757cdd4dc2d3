"""One HTTP request to an API of the shop or of its telemetry, with a deadline and a largest answer."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import urllib3

from observability.story.errors import StoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK_SECONDS = 3.0
_MAX_ANSWER = 32 * 1024 * 1024
_PIECE = 64 * 1024
_PARALLEL = 32
"""Connections kept to one host: the console's four threads ask eight things at once each."""

_pool = urllib3.PoolManager(retries=False, maxsize=_PARALLEL)


@dataclass
class Limits:
    """What all questions of one page may take together."""

    ends: float
    """By `time.monotonic`."""
    max_answer: int
    silent: dict[str, str] | None = field(default_factory=dict)
    """Who did not answer in time, and what was said of it: they are not asked again. None: they are."""


limits: ContextVar[Limits | None] = ContextVar("limits", default=None)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def text(self, limit: int = 300) -> str:
        """Give the body's first characters in one line."""
        return " ".join(self.body[: 4 * limit].decode(errors="replace").split())[:limit]


def ask(  # noqa: PLR0913  # what a request is made of
    who: str,
    url: str,
    fields: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: object = None,
    seconds: float = ASK_SECONDS,
) -> Answer:
    """Ask, and read the answer whole.

    Args:
        who: The API's name, for the message.
        url: Where.
        fields: The query string.
        method: GET or POST.
        headers: Further headers.
        body: Sent as JSON.
        seconds: How long to wait; less where `limits` say so.

    Raises:
        StoryError: There is no answer in time, or it is too large.
    """
    root = "/".join(url.split("/", 3)[:3])
    limit = limits.get() or Limits(float("inf"), _MAX_ANSWER)
    if limit.silent and who in limit.silent:
        raise StoryError(limit.silent[who])
    ends = min(time.monotonic() + seconds, limit.ends)
    left = ends - time.monotonic()
    if left <= 0:
        raise StoryError(f"{who}'s API at {root} was not asked: others took all the time that a page has.")
    what = {"fields": fields} if body is None else {"json": body}
    try:
        answer = _pool.request(
            method,
            url,
            headers=dict(headers or {}),
            preload_content=False,
            redirect=False,
            timeout=urllib3.Timeout(total=left),
            **what,
        )
        read = _read(who, answer, limit.max_answer, ends)
    except urllib3.exceptions.HTTPError as error:
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        why = "nothing listens there" if refused else type(error).__name__
        said = f"{who}'s API at {root} does not answer ({why}): look at `make status`, or `docker compose ps`."
        if limit.silent is not None and isinstance(error, urllib3.exceptions.TimeoutError):
            limit.silent[who] = said
        raise StoryError(said) from error
    return Answer(answer.status, answer.headers, read)


def _read(who: str, answer: urllib3.BaseHTTPResponse, most: int, ends: float) -> bytes:
    """Read an answer whole.

    Raises:
        StoryError: It is too large.
        TimeoutError: It comes too slowly.
    """
    read = bytearray()
    while piece := answer.read1(_PIECE, decode_content=True):
        read += piece
        if len(read) > most:
            answer.close()
            raise StoryError(f"{who}'s answer is larger than {most >> 20} MiB, too large to show: ask for less.")
        if time.monotonic() > ends:
            answer.close()
            raise urllib3.exceptions.TimeoutError
    answer.release_conn()
    return bytes(read)
