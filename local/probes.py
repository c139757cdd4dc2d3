"""Can a part serve? Each probe answers None when it can, else why not in words that follow "it"."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import psycopg2
import urllib3

if TYPE_CHECKING:
    from pathlib import Path

_PROBE_SECONDS = 2.0

# It asks no proxy, as a person's curl may.
_pool = urllib3.PoolManager(num_pools=20, retries=False, timeout=_PROBE_SECONDS)


def http_ready(url: str) -> str | None:
    """Ask a URL for status 200."""
    try:
        status = _pool.request("GET", url, redirect=False).status
    except urllib3.exceptions.HTTPError as error:
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        return "does not listen" if refused else f"does not answer ({type(error).__name__})"
    return None if status == HTTPStatus.OK else f"answers {status}"


def postgres_ready(port: int, user: str, password_file: Path) -> str | None:
    """Log in to the database that has its user's name."""
    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\n")
        connection = psycopg2.connect(
            host="127.0.0.1", port=port, dbname=user, user=user, password=password, connect_timeout=2
        )
    except (psycopg2.OperationalError, OSError) as error:
        return f"refuses: {' '.join(str(error).split())}"
    connection.close()
    return None
