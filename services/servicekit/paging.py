"""Lists in pages: newest first, `?limit=&cursor=`, `{"items": [...], "next_cursor": ...}`."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from servicekit.api import MAX_ID, Query

MAX_LIMIT = 100
_PREFIX = b"before:"

_T = TypeVar("_T")


def encode_cursor(last_id: int) -> str:
    """Return the cursor of the page that follows the item with this id. Clients keep it as it is."""
    return base64.urlsafe_b64encode(_PREFIX + str(last_id).encode()).rstrip(b"=").decode()


def _decode_cursor(cursor: object) -> int:
    if isinstance(cursor, str) and len(cursor) <= 32 and cursor.isascii():  # noqa: PLR2004
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            text = b""
        digits = text.removeprefix(_PREFIX)
        if text.startswith(_PREFIX) and digits.isdigit() and 0 < int(digits) <= MAX_ID:
            return int(digits)
    raise ValueError("not a cursor of this list")


class PageQuery(Query):
    """The query string of a list."""

    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Items a page at most.")
    cursor: (
        Annotated[
            int,
            BeforeValidator(_decode_cursor),
            WithJsonSchema({"type": "string", "maxLength": 32, "description": "`next_cursor` of the page before."}),
        ]
        | None
    ) = Field(None, description="`next_cursor` of the page before.")

    @property
    def before_id(self) -> int:
        """Only items with a smaller id are on this page."""
        return MAX_ID + 1 if self.cursor is None else self.cursor


def cut_page(rows: Sequence[_T], limit: int, id_of: Callable[[_T], int]) -> tuple[Sequence[_T], str | None]:
    """Cut what was read to a page.

    Args:
        rows: Up to `limit + 1` rows: the one too many says that there is a next page.
        limit: Items a page.
        id_of: Gives a row's id.

    Returns:
        The page's rows and the next page's cursor, None at the end.
    """
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, encode_cursor(id_of(page[-1]))
