"""Orders: the list, placing some, and the story of one."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from observability.console import asking, pages, waterfall
from observability.story import telling
from observability.story.apis import attempt, together
from observability.story.backends import understood
from observability.story.errors import LoginNeeded, StoryError
from observability.story.spans import MAX_ORDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from observability.story.telling import Story

BURST = 10
DECLINED = 24
"""A product that costs more than payment-service lets through."""
_STATUSES = ("PAID", "PENDING", "DECLINED")
_SEARCHED = 100
_ON_THE_WAY_SECONDS = 120
_MARGIN_SECONDS, _LATER_SECONDS = 60, 5
"""How far before the oldest and after the newest order of a page its traces begin. The newest ones found are given, so
that all of much later would take the place of the page's own."""

routes = Blueprint("orders", __name__)


@routes.get("/orders/")
def orders() -> str:
    """List the newest orders, with how long each took as its trace says."""
    return _list()


def _list(**values: Any) -> str:
    errors: list[str] = []
    status, slower = request.args.get("status", ""), request.args.get("slower", "")
    cursor = request.args.get("cursor", "")
    if not cursor.isdecimal():
        cursor = ""
    items, older = attempt(errors, lambda: _newest(cursor), lambda: (None, None))
    took: dict[int, float] | None = attempt(errors, lambda: _durations(items or []), lambda: None)
    least = float(slower) / 1000 if slower.isdecimal() and len(slower) < 7 else 0  # noqa: PLR2004
    shown = [
        {**item, "took": (took or {}).get(item["id"])}
        for item in items or ()
        if status in {"", item["status"]} and (not least or ((took or {}).get(item["id"]) or 0) >= least)
    ]
    return pages.page(
        "orders.html",
        errors,
        orders=shown,
        timed=took is not None,
        most=max((order["took"] or 0 for order in shown), default=0) or 1,
        searched=None if items is None or (least and took is None) else len(items),
        statuses=_STATUSES,
        status=status,
        slower=slower,
        next_cursor=older,
        products=attempt(errors, pages.apis().orders.products, list),
        burst=BURST,
        declined=DECLINED,
        **values,
    )


@routes.post("/orders/")
def place() -> ResponseReturnValue:
    """Place an order, or several, and go where they can be seen.

    The form brings a key: sent again, as after an answer that did not come, it places nothing twice.
    """
    product = request.form.get("product_id", 1, type=int)
    quantity = request.form.get("quantity", 1, type=int)
    count = min(max(request.form.get("count", 1, type=int), 1), BURST)
    ask, token = pages.apis().orders, pages.token()
    form_key = request.form.get("key") or new_key()

    def place_one(number: int) -> int | str:
        key = sha256(f"{form_key} {product} {quantity} {number}".encode()).hexdigest()
        try:
            return ask.place(token, product, quantity, key)
        except LoginNeeded:
            raise
        except StoryError as error:
            return str(error)

    told = together(place_one, range(count))
    placed, failed = [one for one in told if isinstance(one, int)], [one for one in told if isinstance(one, str)]
    if not failed:
        if count == 1:
            return redirect(url_for("orders.order", order_id=placed[0]), HTTPStatus.SEE_OTHER)
        return redirect(url_for("orders.orders"), HTTPStatus.SEE_OTHER)
    again = {"product_id": product, "quantity": quantity, "count": count, "key": form_key}
    if placed:
        return _list(placed=placed, count=count, why=failed[0], again=again), HTTPStatus.BAD_GATEWAY
    return pages.page("error.html", title="Not placed", said=failed[0], again=again), HTTPStatus.BAD_GATEWAY


def new_key() -> str:
    """Give what tells one form from all others."""
    return secrets.token_hex(16)


@routes.get(f"/orders/<int(min=1, max={MAX_ORDER}):order_id>")
def order(order_id: int) -> str:
    """Tell an order's story: its row, its traces, its log lines."""
    with understood("The shop"):
        story = telling.of_order(pages.shop(), order_id, 0)
    return _told(story, order_id)


def _told(story: Story, order_id: int) -> str:
    drawn = [(chapter, waterfall.draw(chapter.trace, chapter.lines)) for chapter in story.chapters]
    return pages.page(
        "order.html",
        story.errors,
        order=story.row,
        order_id=order_id,
        chapters=drawn,
        missing=story.missing,
        young=_is_young(story.row or {}),
        kept=any(chapter.trace.spans or chapter.lines for chapter in story.chapters),
        chosen=pages.chosen(story),
    )


def _is_young(order: Mapping[str, Any]) -> bool:
    """Tell whether what is missing of an order may still come."""
    try:
        placed = datetime.fromisoformat(str(order.get("created_at")))
    except ValueError:
        return False
    placed = placed if placed.tzinfo else placed.replace(tzinfo=UTC)
    return asking.now() - placed.timestamp() < _ON_THE_WAY_SECONDS


def _newest(cursor: str) -> tuple[list[dict[str, Any]], object]:
    """Give a page of orders, each with what the list needs, and where the next one begins."""
    found = pages.apis().orders.newest(pages.token(), cursor)
    items = [{"product": "", "quantity": 1, "created_at": "", **item} for item in found["items"]]
    return [item for item in items if item["id"] and item["status"]], found["next_cursor"]


def _durations(items: list[dict[str, Any]]) -> dict[int, float]:
    """Give how many seconds placing each order took, of those whose trace is kept."""
    times = [datetime.fromisoformat(item["created_at"]).timestamp() for item in items if item["created_at"]]
    if not times:
        return {}
    found = pages.apis().jaeger.search(
        {
            "service": "order-service",
            "operation": "POST /orders/",
            "start": str(int((min(times) - _MARGIN_SECONDS) * 1e6)),
            "end": str(int((max(times) + _LATER_SECONDS) * 1e6)),
            "limit": str(_SEARCHED),
        }
    )
    took: dict[int, float] = {}
    for trace in found:
        for span in trace["spans"]:
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            if span["operationName"] == "POST /orders/" and str(tags.get("shop.order.id", "")).isdecimal():
                number = int(tags["shop.order.id"])
                took[number] = max(took.get(number, 0), span["duration"] / 1e6)
    return took
