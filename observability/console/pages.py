"""What all pages share: what they ask, as whom, for which time, and how they are put together."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import current_app, render_template, request

from observability.console import asking
from observability.console.asking import Apis, Shop
from observability.console.waterfall import Chosen, choose
from observability.story.window import DEFAULT, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from observability.console.settings import ConsoleSettings
    from observability.story.telling import Story

TOKEN_COOKIE = "console_token"  # noqa: S105
_OWN = re.compile(r"/(?![/\\])[!-~]*")


def apis() -> Apis:
    """Give the APIs that this app asks."""
    found: Apis = current_app.extensions["apis"]
    return found


def settings() -> ConsoleSettings:
    """Give the settings of this app."""
    found: ConsoleSettings = current_app.extensions["settings"]
    return found


def token() -> str:
    """Give the browser's token; empty where the demo user's is to be taken."""
    return request.cookies.get(TOKEN_COOKIE, "")


def shop() -> Shop:
    """Give the shop as this browser's user sees it."""
    return Shop(apis(), token())


def own(path: str) -> str:
    """Give a path of the console's own as it is; the first page's instead of what may lead a browser elsewhere."""
    return path if _OWN.fullmatch(path) else "/"


def here() -> str:
    """Give the address of this page, to come back to."""
    asked = request.query_string.decode("latin-1")
    return own(quote(request.path) + (f"?{asked}" if asked else ""))


def window(default: str = DEFAULT) -> Window:
    """Give the time that the URL asks for."""
    return Window.read(request.args, asking.now(), default)


def same_time() -> dict[str, Any]:
    """Give the time that the URL asks for, to be kept on the way to another page."""
    return {name: request.args[name] for name in ("range", "from", "to", "back") if name in request.args}


def chosen(story: Story) -> Chosen | None:
    """Give the span or the log line that the URL names."""
    told = ((chapter.trace, chapter.lines) for chapter in story.chapters)
    return choose(told, request.args.get("span", ""), request.args.get("line", ""))


def page(template: str, errors: Sequence[str] = (), **values: Any) -> str:
    """Render a page; `errors` are what could not be asked."""
    return render_template(template, errors=errors, **values)


def json_text(value: object) -> str:
    """Write JSON as the APIs want it in a parameter."""
    return json.dumps(value, separators=(",", ":"))
