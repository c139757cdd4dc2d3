"""What is wrong, where and why, as `make why` says it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Blueprint, Response, request, url_for

from observability.console import pages
from observability.story.text import plain
from observability.why import words
from observability.why.answer import Reason
from observability.why.gather import PATIENCE_EACH, Backends
from observability.why.look import look_at

if TYPE_CHECKING:
    from observability.why.answer import Answer, Cause

SINCE = {"": None, "30s": 30.0, "1m": 60.0, "2m": 120.0, "10m": 600.0, "30m": 1800.0}
_TRACE = re.compile(r"/api/traces/([0-9a-f]+)$")
_NAMES = {"service": "service", "operation": "operation", "minDuration": "min"}
"""Of Jaeger's parameters and of the page Traces."""
_LIMITS = (20, 50, 100)
"""The page Traces shows as many, or 200."""

routes = Blueprint("why", __name__)


@routes.get("/why")
def why() -> str | Response:
    """Look, and tell; `?json` for programs."""
    apis, since = pages.apis(), request.args.get("since", "")
    backends = Backends(
        replace(apis.jaeger, seconds=PATIENCE_EACH),
        replace(apis.loki, seconds=PATIENCE_EACH),
        replace(apis.prometheus, seconds=PATIENCE_EACH),
    )
    answer = look_at(backends, since=SINCE.get(since))
    if "json" in request.args:
        return Response(json.dumps(plain(answer.plain()), allow_nan=False), mimetype="application/json")
    return pages.page(
        "why.html",
        answer.not_looked_at,
        answer=answer,
        headline=words.headline(answer),
        sure=words.sure,
        reasons=_reasons,
        reason=lambda says, query: Reason(says=says, query=query),
        link=lambda query: _link(query, answer),
        choices=list(SINCE),
        since=since,
    )


def _reasons(cause: Cause) -> list[Reason]:
    return [one for one in (cause.loss, *cause.because) if one]


def _link(query: str, answer: Answer) -> str:
    """Give the page that asks the same; nothing where there is none."""
    backend = Reason(says="", query=query).backend
    if backend == "Jaeger":
        return _traces(query)
    if backend == "Loki":
        begin, end = (round(datetime.fromisoformat(one).timestamp() * 1000) for one in (answer.since, answer.at))
        return f"{url_for('logs.logs')}?{urlencode({'q': query, 'from': begin, 'to': end})}"
    root = pages.settings().prometheus_public_url
    at = f"{datetime.fromisoformat(answer.at):%Y-%m-%d %H:%M:%S}"
    return f"{root}/graph?{urlencode({'g0.expr': query, 'g0.tab': '0', 'g0.end_input': at})}" if root else ""


def _traces(query: str) -> str:
    """Give the page that shows a trace, or that searches as Jaeger is asked to."""
    asked = urlsplit(query)
    if found := _TRACE.search(asked.path):
        return url_for("traces.trace", trace_id=found[1])
    fields = dict(parse_qsl(asked.query))
    wanted: dict[str, str | int] = {ours: fields[name] for name, ours in _NAMES.items() if name in fields}
    if "tags" in fields:
        wanted["tags"] = " ".join(f'{key}="{value}"' for key, value in json.loads(fields["tags"]).items())
    if "limit" in fields:
        wanted["limit"] = next((limit for limit in _LIMITS if limit >= int(fields["limit"])), 200)
    wanted |= {ours: int(fields[name]) // 1000 for name, ours in (("start", "from"), ("end", "to")) if name in fields}
    return f"{url_for('traces.search')}?{urlencode(wanted)}"
