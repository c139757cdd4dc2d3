"""Orders: the list, placing some, and the story of one."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from observability.console import pages, waterfall
from observability.console.asking import attempt, together
from observability.story import telling
from observability.story.backends import understood
from observability.story.spans import MAX_ORDER

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from observability.story.telling import Story

BURST = 10
DECLINED = 24
"""A product that costs more than payment-service lets through."""
_STATUSES = ("PAID", "PENDING", "DECLINED")
_SEARCHED = 100
_MARGIN_SECONDS = 60

routes = Blueprint("orders", __name__)


@routes.get("/orders/")
def orders() -> str:
    """List the newest orders, with how long each took as its trace says."""
    errors: list[str] = []
    status, slower = request.args.get("status", ""), request.args.get("slower", "")
    cursor = request.args.get("cursor", "")
    if not cursor.isdecimal():
        cursor = ""
    items, older = attempt(errors, lambda: _newest(cursor), lambda: (None, None))
    took = attempt(errors, lambda: _durations(items or []), dict)
    least = float(slower) / 1000 if slower.isdecimal() and len(slower) < 7 else 0  # noqa: PLR2004
    shown = [
        {**item, "took": took.get(item["id"])}
        for item in items or ()
        if status in {"", item["status"]} and (not least or (took.get(item["id"]) or 0) >= least)
    ]
    return pages.page(
        "orders.html",
        errors,
        orders=shown,
        most=max((order["took"] or 0 for order in shown), default=0) or 1,
        searched=None if items is None else len(items),
        statuses=_STATUSES,
        status=status,
        slower=slower,
        next_cursor=older,
        products=attempt(errors, pages.apis().orders.products, list),
        burst=BURST,
        declined=DECLINED,
    )


@routes.post("/orders/")
def place() -> Response:
    """Place an order, or several, and go where they can be seen."""
    product = request.form.get("product_id", 1, type=int)
    quantity = request.form.get("quantity", 1, type=int)
    count = min(max(request.form.get("count", 1, type=int), 1), BURST)
    ask, token = pages.apis().orders, pages.token()
    placed = together(lambda _: ask.place(token, product, quantity), range(count))
    if count == 1:
        return redirect(url_for("orders.order", order_id=placed[0]), HTTPStatus.SEE_OTHER)
    return redirect(url_for("orders.orders"), HTTPStatus.SEE_OTHER)


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
        chosen=pages.chosen(story),
    )


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
            "end": str(int((max(times) + _MARGIN_SECONDS) * 1e6)),
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
