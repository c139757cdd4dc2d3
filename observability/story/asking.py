"""One HTTP request to an API of the shop or of its telemetry, with a deadline and a largest answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3

from observability.story.errors import StoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = 3.0
_MAX_ANSWER = 32 * 1024 * 1024
_PARALLEL = 64
"""Connections kept to one host: the console's eight threads ask eight things at once each."""

_pool = urllib3.PoolManager(retries=False, timeout=_SECONDS, maxsize=_PARALLEL)


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
) -> Answer:
    """Ask, and read the answer whole.

    Args:
        who: The API's name, for the message.
        url: Where.
        fields: The query string.
        method: GET or POST.
        headers: Further headers.
        body: Sent as JSON.

    Raises:
        StoryError: There is no answer in time, or it is too large.
    """
    root = "/".join(url.split("/", 3)[:3])
    try:
        if body is not None:
            answer = _pool.request(
                method, url, json=body, headers=dict(headers or {}), preload_content=False, redirect=False
            )
        else:
            answer = _pool.request(
                method, url, fields=fields, headers=dict(headers or {}), preload_content=False, redirect=False
            )
        read = answer.read(_MAX_ANSWER + 1, decode_content=True)
        if len(read) > _MAX_ANSWER:
            answer.close()
            raise StoryError(f"{who}'s answer is larger than {_MAX_ANSWER >> 20} MiB: ask for less.")
        answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        why = "nothing listens there" if refused else type(error).__name__
        raise StoryError(
            f"{who}'s API at {root} does not answer ({why}): look at `make status`, or `docker compose ps`."
        ) from error
    return Answer(answer.status, answer.headers, read)
