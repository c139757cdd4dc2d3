"""Which `Host` a request may name: keeps out web pages that had their own name resolve to this machine.

With such DNS rebinding a page reaches what listens on loopback or in a private network, and the browser takes it for
the page's own server. The name stays in `Host`, where a script cannot change it. An address cannot be had that way, and
`localhost` is resolved by nobody's name server.
"""

import ipaddress
import re

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)


class Hosts:
    """The names that a service goes by.

    Args:
        service: Its name.
        further: More of them, separated by commas; with a dot in front all names below that one.
    """

    def __init__(self, service: str, further: str = "") -> None:
        names = [name.strip().lower() for name in further.split(",") if name.strip()]
        self._names = frozenset({"localhost", service, *names})
        self._below = tuple(name for name in names if name.startswith("."))

    def trusts(self, host: str | None, protocol: str | None = None) -> bool:
        """Tell whether a request with this `Host` is meant for the service.

        Args:
            host: The header.
            protocol: Such as `HTTP/1.1`. HTTP/1.0 has requests without the header; no browser sends them.
        """
        if host is None:
            return protocol == "HTTP/1.0"
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        address, name = match[1], match[2]
        if address is None:
            name = name.lower().removesuffix(".")
            if name in self._names or (self._below and name.endswith(self._below)):
                return True
            address = name
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return False
        return True
