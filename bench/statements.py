"""An order's SQL statements without the shop around them, by pgbench: the most that the database allows.

They are asked of the services' own stores, so they are always the present ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NoReturn

from bench.errors import BenchError
from local import postgres
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_PRODUCT = {"id": 1, "sku": "KIT-MUG-001", "name": "Stoneware mug", "unit_price_minor": 1450, "currency": "EUR"}
_PATIENCE_SECONDS = 60
_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class _RecordedError(Exception):
    """A statement was seen."""


class _Recorder:
    """Stands for the services' Database, and notes what it is to run."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Mapping[str, Any]]] = []

    def fetch_one(self, _summary: str, sql: str, parameters: Mapping[str, Any] | None = None) -> NoReturn:
        self.seen.append((sql, parameters or {}))
        raise _RecordedError


def script() -> str:
    """Write pgbench's script of one order: each statement is a transaction of its own, as in the services."""
    sys.path[:0] = [str(PROJECT / "services" / part) for part in (".", "order/src", "payment/src")]
    from order_service.domain import Settlement, Status
    from order_service.store import Orders
    from payment_service.domain import Charge, Outcome
    from payment_service.store import Payments

    database: Any = _Recorder()
    orders, payments = Orders(database, 10.0), Payments(database)
    charge = Charge(0, 1, 1450, "EUR")
    key = "'order-:order_id'"  # in pgbench's simple protocol variables are filled in within quotes too
    steps: list[tuple[Callable[[], Any], dict[str, str], str]] = [
        (lambda: orders.add(1, _PRODUCT, 1, None, _TRACEPARENT), {}, "order_"),
        (lambda: payments.recorded("", charge), {"key": key}, ""),
        (lambda: payments.record("", charge, Outcome.PAID, None), {"key": key, "order_id": ":order_id"}, "payment_"),
        (lambda: orders.settle(0, Settlement(Status.PAID, 0)), {"id": ":order_id", "payment_id": ":payment_id"}, ""),
    ]
    lines = []
    for step, variables, prefix in steps:
        with contextlib.suppress(_RecordedError):
            step()
        sql, parameters = database.seen.pop()
        end = f"\\gset {prefix}" if prefix else ";"  # \gset wants a row, and there is no payment yet to be selected
        lines.append(f"{_filled(sql, parameters, variables)} {end}")
    return "\n".join(lines) + "\n"


def _filled(sql: str, parameters: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    return re.sub(r"%\((\w+)\)s", lambda match: variables.get(match[1]) or _literal(parameters[match[1]]), sql)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


def run(port: int, password_file: Path, clients: int, seconds: float) -> dict[str, float]:
    """Run the statements with so many clients.

    Returns:
        Orders a second, and the mean latency of an order in milliseconds.

    Raises:
        BenchError: pgbench failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script())
        file.flush()
        command = [str(postgres.binaries() / "pgbench"), "--no-vacuum", "--protocol=simple", f"--file={file.name}"]
        command += [f"--client={clients}", "--jobs=1", f"--time={max(1, round(seconds))}"]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **postgres.client_env(port, password_file)},
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + _PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"pgbench was to take {seconds:g} s and did not end in {error.timeout:.0f} s.") from error
    speed = re.search(r"tps = ([\d.]+)", done.stdout)
    latency = re.search(r"latency average = ([\d.]+) ms", done.stdout)
    if done.returncode or speed is None or latency is None:
        raise BenchError(f"pgbench failed: {(done.stderr or done.stdout).strip()}")
    return {"per_second": float(speed[1]), "mean_ms": float(latency[1])}
