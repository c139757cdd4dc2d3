"""What keeps other web pages out of the console, and the text of others from running in it."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import abort, request

from servicekit.web.hosts import Hosts

if TYPE_CHECKING:
    from flask import Flask, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE = frozenset(("GET", "HEAD"))
_WORTH_PACKING = 1024


def protect(app: Flask, further_hosts: str) -> None:
    """Check each request's `Host` and `Origin`, and give each answer the headers that bind the browser."""
    hosts = Hosts("console", further_hosts)

    @app.before_request
    def refuse_others() -> None:
        if not hosts.trusts(request.environ.get("HTTP_HOST"), request.environ.get("SERVER_PROTOCOL")):
            abort(HTTPStatus.BAD_REQUEST, "The console does not go by the name in Host: TRUSTED_HOSTS names more.")
        if request.method in _SAFE:
            return
        origin = request.headers.get("Origin")
        foreign = origin is not None and origin.lower() != request.host_url.rstrip("/").lower()
        if foreign or request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
            abort(HTTPStatus.FORBIDDEN, "Only the console's own pages may do this.")

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.update(_HEADERS)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return _packed(response)


def _packed(response: Response) -> Response:
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] <= 0 or response.status_code != HTTPStatus.OK:
        return response
    response.direct_passthrough = False
    body = response.get_data()
    if len(body) >= _WORTH_PACKING:
        response.set_data(gzip.compress(body, compresslevel=5))
        response.headers["Content-Encoding"] = "gzip"
    return response
