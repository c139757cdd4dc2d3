"""A check of the `Host` that a request names, for ports that trust whoever may connect.

A page of anybody's may give its own name, for a while, the address 127.0.0.1. To the browser what answers there is then
of the page's own origin, to be read and written to ("DNS rebinding"). The page's name stays in `Host`.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Response, request

_OURS = ("localhost", "local", "internal", "svc")
"""Top-level names that nobody can register: of this machine, the network, Docker, Kubernetes."""


def refuse_foreign_hosts() -> Response | None:
    """Refuse a request for a host that somebody else may own; for `before_request`."""
    host = request.headers.get("Host", "")
    if not is_foreign(host):
        return None
    text = "this is no public host: ask for localhost, an address, or a name without a dot\n"
    return Response(text, 421, content_type="text/plain; charset=utf-8")


def is_foreign(host: str) -> bool:
    """Say whether a `Host` may be in somebody's DNS: a name with a dot, and no address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True
    name = name.rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and name.rpartition(".")[2] not in _OURS
    return False
