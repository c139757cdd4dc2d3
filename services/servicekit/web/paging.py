"""Lists in pages: newest first, `?limit=&cursor=`, `{"items": [...], "next_cursor": ...}`."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from pydantic import Field

from servicekit.web.openapi import DIGITS, MAX_ID, Query

MAX_LIMIT = 100

_T = TypeVar("_T")


class PageQuery(Query):
    """The query string of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), DIGITS] = Field(50, description="Items a page at most.")
    cursor: Annotated[int, Field(ge=1, le=MAX_ID), DIGITS] | None = Field(
        None, description="`next_cursor` of the page before."
    )

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
        The page's rows and the next page's cursor, None at the end. The cursor is the last id of this page: what
        comes in meanwhile is newer, and so neither repeats nor hides anything.
    """
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, str(id_of(page[-1]))
