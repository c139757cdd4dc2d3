"""Traces: search, look at one, compare two."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, redirect, request, url_for

from observability.console import pages, show, waterfall
from observability.story import backends, telling
from observability.story.apis import Refused, attempt
from observability.story.critical import compare as compared
from observability.story.errors import StoryError
from observability.story.spans import MAX_ORDER, Trace, parse

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_TAG = re.compile(r'([^\s=]+)=(?:"([^"]*)"|(\S+))')
_LIMITS = ("20", "50", "100", "200")
_SERVICE = "order-service"

routes = Blueprint("traces", __name__)


@routes.get("/traces/")
def search() -> str:
    """Search as Jaeger's own page does."""
    window, errors, args = pages.window("1h"), list[str](), request.args
    ask = pages.apis().jaeger
    services = attempt(errors, ask.services, list)
    service = args.get("service") or (_SERVICE if _SERVICE in services else next(iter(services), ""))
    operation = args.get("operation", "")
    operations = attempt(errors, lambda: ask.operations(service), list) if service else []
    limit = args["limit"] if args.get("limit") in _LIMITS else _LIMITS[0]
    tags = {name: quoted or plain for name, quoted, plain in _TAG.findall(args.get("tags", ""))}
    fields = {
        "service": service,
        "operation": operation,
        "minDuration": args.get("min", ""),
        "maxDuration": args.get("max", ""),
        "tags": pages.json_text(tags) if tags else "",
        "limit": limit,
        **window.microseconds(),
    }
    found: list[Trace] = []
    try:
        if service:
            found = attempt(errors, lambda: [parse(one) for one in ask.search(fields)], list, Refused)
    except Refused as error:
        errors.append(f"Jaeger does not take this search: {error}")
    order = args.get("sort", "newest")
    found.sort(key=(lambda one: -one.duration) if order == "slowest" else (lambda one: -one.start))
    return pages.page(
        "traces.html",
        errors,
        curl=show.curl(f"{ask.public}/api/traces", fields),
        window=window,
        traces=[summary(trace) for trace in found],
        dots=_dots(found),
        most=max((trace.duration for trace in found), default=0),
        services=services,
        service=service,
        operations=operations,
        operation=operation,
        limits=_LIMITS,
        limit=limit,
        sort=order,
    )


@routes.get("/traces/<trace_id>")
def trace(trace_id: str) -> str:
    """Show a trace with its log lines."""
    _check(trace_id)
    story = telling.of_trace(pages.shop(), trace_id.lower().zfill(32), 0)
    chapter = next(each for each in story.chapters if each.trace.trace_id.zfill(32) == trace_id.lower().zfill(32))
    unasked = [error for error in story.errors if not error.startswith("Please sign in")]
    return pages.page(
        "trace.html",
        story.errors,
        chapter=chapter,
        drawn=waterfall.draw(chapter.trace, chapter.lines),
        order_id=chapter.trace.order_id(),
        missing=[] if unasked else chapter.missing(),
        unasked=unasked,
        chosen=pages.chosen(story),
        curl=show.curl(f"{pages.apis().jaeger.public}/api/traces/{chapter.trace.trace_id}"),
    )


@routes.get("/traces/compare")
def compare() -> str:
    """Put two traces side by side."""
    picked, errors = request.args.getlist("id"), list[str]()
    names = [*picked, "", ""][:2] if picked else [request.args.get(side, "").strip() for side in "ab"]

    def trace_of(name: str) -> Trace:
        _check(name)
        found = backends.trace(pages.apis().jaeger.root, name.lower().zfill(32))
        if not found.spans:
            raise StoryError(f"There is no trace {name}.")
        return found

    traces = [attempt(errors, partial(trace_of, name), partial(Trace, name)) for name in names if name]
    both = len(traces) == 2  # noqa: PLR2004
    rows = compared(*traces) if both else []
    return pages.page(
        "compare.html",
        errors,
        picked=len(picked),
        names=names,
        drawn=[waterfall.draw(each) for each in traces],
        rows=rows,
        most=max((abs(row.change) for row in rows), default=0) or 1,
    )


@routes.get("/find")
def find() -> Response:
    """Go to what was typed: an order's number or a trace id; else search the log for it."""
    text = request.args.get("q", "").strip().lstrip("#")
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) <= MAX_ORDER:
        return redirect(url_for("orders.order", order_id=int(text)), HTTPStatus.SEE_OTHER)
    if _TRACE_ID.fullmatch(text) and len(text) >= 16:  # noqa: PLR2004
        return redirect(url_for("traces.trace", trace_id=text.lower()), HTTPStatus.SEE_OTHER)
    words = text.replace("`", "")
    query = f'{{service_namespace="shop"}} |= `{words}`'
    return redirect(url_for("logs.logs", **pages.same_time(), q=query), HTTPStatus.SEE_OTHER)


def summary(trace: Trace) -> dict[str, Any]:
    """Say in short what a list of traces shows of one."""
    counts: dict[str, int] = {}
    for span in trace.spans:
        counts[span.service] = counts.get(span.service, 0) + 1
    first = next(trace.tree())[0]
    return {
        "id": trace.trace_id,
        "name": first.name,
        "service": first.service,
        "start": trace.start / 1e6,
        "duration": trace.duration,
        "spans": len(trace.spans),
        "errors": sum(span.failed for span in trace.spans),
        "services": counts,
        "order_id": trace.order_id(),
    }


def _dots(traces: list[Trace]) -> list[dict[str, Any]]:
    """Place each trace by when it began and how long it took."""
    if not traces:
        return []
    first, last = min(one.start for one in traces), max(one.start for one in traces)
    most = max(one.duration for one in traces) or 1
    return [
        {
            "x": round(20 + 960 * (one.start - first) / max(last - first, 1), 1),
            "y": round(94 - 88 * one.duration / most, 1),
            "id": one.trace_id,
            "failed": any(span.failed for span in one.spans),
            "duration": one.duration,
        }
        for one in traces
    ]


def _check(trace_id: str) -> None:
    if not _TRACE_ID.fullmatch(trace_id):
        abort(HTTPStatus.NOT_FOUND, "A trace id is 32 hexadecimal digits.")
