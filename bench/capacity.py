"""Measures what one order stores: bytes in each store, spans and log lines. Capacities are calculated from this."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import urllib3

from bench import cpu, measure
from bench.rows import ROWS, Row

if TYPE_CHECKING:
    from pathlib import Path

    from bench.stacks import BenchStack, Say

_CLIENTS = 8
_PROGRAMS = ("otelcol", "jaeger", "loki")
_FLUENT, _LOKI = 2, 10  # their places among the backends' ports
_LOKI_KEEPS = ("chunks", "tsdb-shipper-active")  # not the log of what it has yet to write
_LINES_AT_ONCE = 20
_PAUSE_SECONDS = 0.02

_http = urllib3.PoolManager(timeout=60, retries=False)


def rows(project: Path) -> list[Row]:
    """Give a project's stacks to be looked at; that with the real backends only where their programs are."""
    binaries = os.environ.get("BACKEND_BINARIES")
    found = [dataclasses.replace(ROWS["full"], project=project)]
    if binaries and all(shutil.which(name, path=binaries) for name in _PROGRAMS):
        environment = {"TELEMETRY": "off", "GATEWAY_SAMPLE_PERCENT": "100", "BENCH_GATEWAY_TELEMETRY": "on"}
        environment["BENCH_BACKENDS"] = binaries
        found.append(Row("backends", "Collector, Jaeger, Loki", environment, project=project))
    return found


def of_embedded(stack: BenchStack, seconds: float) -> dict[str, Any]:
    """Measure what an order leaves in a local stack."""
    before = _embedded(stack)
    turn = measure.turn(stack, _CLIENTS, seconds)
    orders = _orders_since(stack, before["orders"])
    after = _embedded(stack)
    each = {name: (after[name] - before[name]) / orders for name in before if name != "orders"}
    prometheus = f"http://127.0.0.1:{stack.ports['PROMETHEUS']}/metrics"
    series = _metric(_http.request("GET", prometheus).data.decode(), "prometheus_tsdb_head_series")
    return {
        "orders": orders,
        "per_second": turn["per_second"],
        "others_busy": turn["others_busy"],
        "parts_cpu_ms": turn["parts_cpu_ms"],
        "each": each,
        "series": series,
        "pool": 10,
    }


def of_backends(stack: BenchStack, seconds: float, say: Say) -> dict[str, Any]:
    """Measure what an order leaves in Jaeger and, when its lines are sent there too, in Loki; then stop the stack."""
    backends = stack.run_dir / "backends"
    kept = {"jaeger": [backends / "jaeger"], "loki": [backends / "loki" / name for name in _LOKI_KEEPS]}
    first = _orders(stack)
    turn = measure.turn(stack, _CLIENTS, seconds)
    orders = _orders_since(stack, first)
    memory = cpu.memory(stack.parts)
    say("sending the lines to the Collector as Docker does")
    _send_lines(stack)
    stack.settled()
    memory_after = cpu.memory(stack.parts)
    _http.request("POST", f"http://127.0.0.1:{stack.backend_ports[_LOKI]}/flush")
    stack.settled()
    stack.down()  # Jaeger's store has its true size only then
    sizes = {name: sum(map(_size, folders)) for name, folders in kept.items()}
    return {
        "orders": orders,
        "per_second": turn["per_second"],
        "others_busy": turn["others_busy"],
        "parts_cpu_ms": turn["parts_cpu_ms"],
        "each": {f"{name}_bytes": size / orders for name, size in sizes.items()},
        "memory_mb": {
            name: max(memory[name]["pss_mb"], memory_after[name]["pss_mb"]) for name in ("collector", "jaeger", "loki")
        },
    }


def _embedded(stack: BenchStack) -> dict[str, float]:
    time.sleep(2)  # for what is still on its way
    text = _http.request("GET", f"http://127.0.0.1:{stack.ports['OTLP']}/metrics").data.decode()
    logs = _logs(stack)
    return {
        "orders": _orders(stack),
        "spans": _metric(text, "embedded_spans_stored_total"),
        "embedded_bytes": _metric(text, "embedded_database_used_bytes"),
        "log_bytes": sum(len(line) + 1 for lines in logs.values() for line in lines),
        "log_lines": sum(map(len, logs.values())),
        "database_bytes": _ask(stack, "SELECT pg_database_size(current_database())"),
    }


def _orders(stack: BenchStack) -> float:
    return _ask(stack, "SELECT count(*) FROM orders.orders")


def _orders_since(stack: BenchStack, before: float) -> float:
    return _orders(stack) - before


def _ask(stack: BenchStack, query: str) -> float:
    password = (stack.run_dir / "secrets" / "orders_user").read_text(encoding="utf-8").strip()
    connection = psycopg2.connect(
        host="127.0.0.1", port=stack.ports["ORDER_DB"], dbname="orders_user", user="orders_user", password=password
    )
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return float(row[0]) if row else 0.0


def _logs(stack: BenchStack) -> dict[str, list[bytes]]:
    """Read the JSON lines that the shop's parts wrote, those in files that were put aside too."""
    found: dict[str, list[bytes]] = {}
    for path in sorted((stack.run_dir / "logs").glob("*.log*")):
        name = path.name.partition(".")[0]
        if name.endswith("-service") or name == "nginx":
            found.setdefault(name, []).extend(line for line in path.read_bytes().splitlines() if line[:1] == b"{")
    return found


def _send_lines(stack: BenchStack) -> None:
    """Send each line to the Collector in the protocol of Docker's log driver, no faster than it can take them."""
    with socket.create_connection(("127.0.0.1", stack.backend_ports[_FLUENT]), 10) as connection:
        for name, lines in _logs(stack).items():
            for start in range(0, len(lines), _LINES_AT_ONCE):
                connection.sendall(b"".join(_event(name, line) for line in lines[start : start + _LINES_AT_ONCE]))
                time.sleep(_PAUSE_SECONDS)


def _event(tag: str, line: bytes) -> bytes:
    """Pack `[tag, time, {"log": line}]` as MessagePack."""
    texts = [b"\xda" + struct.pack(">H", len(text)) + text for text in (tag.encode(), b"log", line)]
    return b"\x93" + texts[0] + b"\xce" + struct.pack(">I", int(time.time())) + b"\x81" + texts[1] + texts[2]


def _metric(text: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([\d.e+-]+)", text, re.MULTILINE))


def _size(folder: Path) -> int:
    """Add up what files take on the disk: some are longer than what is in them."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
