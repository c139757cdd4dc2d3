"""The container's health check: `python -S -m servicekit.healthcheck` asks the service in it whether it is alive.

It runs every few seconds, so it imports next to nothing: 15 ms instead of 80 with `http.client`.
"""

import os
import socket
import sys


def alive(port: int, timeout_seconds: float = 2.0) -> bool:
    """Tell whether the service on this port of this machine answers `/healthz` with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not alive(int(os.environ["PORT"])))
