"""Pages of lists, newest first: `?limit=&cursor=` returns `{"items": [...], "next_cursor": ...}`."""

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
        """The page contains only items with a smaller id."""
        return MAX_ID + 1 if self.cursor is None else self.cursor


def cut_page(rows: Sequence[_T], limit: int, id_of: Callable[[_T], int]) -> tuple[Sequence[_T], str | None]:
    """Split rows into a page and the cursor of the next page.

    Args:
        rows: Up to `limit + 1` rows; one more than `limit` means that there is a next page.
        limit: The most items of a page.
        id_of: Returns a row's id.

    Returns:
        The page's rows and the next page's cursor, None at the end. The cursor is the last id of this page. Items that
        are added meanwhile have larger ids, so they do not repeat or hide anything on the next page.
    """
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, str(id_of(page[-1]))
