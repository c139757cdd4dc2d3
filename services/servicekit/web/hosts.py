"""Checks the `Host` of requests, as a protection against DNS rebinding.

In this attack, the name of a web page resolves to this machine. So the page can call services on loopback or in a
private network, and the browser treats them as the page's own server. But `Host` still contains the page's name, and a
script cannot change it. IP addresses and `localhost` are safe: no attacker's name server resolves them.
"""

import ipaddress
import re

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)


class Hosts:
    """The host names of a service.

    Args:
        service: The service's name.
        further: Further names, separated by commas; a name with a leading dot stands for all its subdomains.
    """

    def __init__(self, service: str, further: str = "") -> None:
        names = [name.strip().lower() for name in further.split(",") if name.strip()]
        self._names = frozenset({"localhost", service, *names})
        self._below = tuple(name for name in names if name.startswith("."))

    def trusts(self, host: str | None, protocol: str | None = None) -> bool:
        """Tell whether a request with this `Host` is meant for the service.

        Args:
            host: The header.
            protocol: Such as `HTTP/1.1`. In HTTP/1.0 the header may be missing; no browser sends such requests.
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
