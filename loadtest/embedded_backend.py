"""How much the embedded backend takes, and how fast it finds it again: spans a second, search times, memory, size.

    .venv/bin/python -m loadtest.embedded_backend --spans 1000000

starts one of its own on free ports with an empty file, sends it traces of orders as the shop's services would, and asks
it the questions that a person asks Jaeger. All requests are made before the clock runs.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http import HTTPStatus
from pathlib import Path
from queue import Empty, Queue
from typing import Self
from urllib.parse import urlencode

import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from local import ports, processes
from local.settings import PROJECT

BATCH = 512  # spans of a request, as the SDK's exporter makes them
CHUNK = 128  # traces that are under way at once
ALL_TAKEN = (b"", b"\n\0")  # an ExportTraceServiceResponse without, and with an empty partial_success
HOURS = 12  # over which the traces are spread
MS = 1_000_000
SERVER, CLIENT, INTERNAL = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL

DATABASE: dict[str, str | int] = {
    "db.system.name": "postgresql",
    "db.namespace": "orders_user",
    "db.query.text": "INSERT INTO some.table (a, b, c) VALUES (%(a)s, %(b)s, %(c)s) ON CONFLICT DO NOTHING",
    "server.address": "127.0.0.1",
    "server.port": 5433,
}


def http(method: str, route: str, status: int) -> dict[str, str | int]:
    """Give a server span's attributes."""
    return {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "server.address": "127.0.0.1",
        "server.port": 5004,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }


# service, name, kind, index of the parent, start and end in ms, attributes; {order} is the order's id
ORDER: list[tuple[str, str, int, int, float, float, dict[str, str | int]]] = [
    ("nginx", "POST /orders/", SERVER, -1, 0, 31, http("POST", "/orders/", 201)),
    ("order-service", "POST /orders/", SERVER, 0, 1, 30, {**http("POST", "/orders/", 201), "shop.order.id": "{order}"}),
    ("order-service", "GET /products/{product_id}", CLIENT, 1, 2, 6, http("GET", "/products/{product_id}", 200)),
    ("product-service", "GET /products/{product_id}", SERVER, 2, 3, 5, http("GET", "/products/{product_id}", 200)),
    ("order-service", "INSERT orders", CLIENT, 1, 7, 10, {**DATABASE, "db.query.summary": "INSERT orders"}),
    ("order-service", "settle order", INTERNAL, 1, 11, 29, {"shop.order.id": "{order}", "shop.order.status": "PAID"}),
    ("order-service", "POST /internal/charges", CLIENT, 5, 12, 24, http("POST", "/internal/charges", 201)),
    ("payment-service", "POST /internal/charges", SERVER, 6, 13, 23, http("POST", "/internal/charges", 201)),
    ("payment-service", "decide charge", INTERNAL, 7, 16, 17, {"shop.order.id": "{order}"}),
    ("payment-service", "INSERT payments", CLIENT, 7, 17, 21, {**DATABASE, "db.query.summary": "INSERT payments"}),
    ("order-service", "UPDATE orders", CLIENT, 5, 25, 27, {**DATABASE, "db.query.summary": "UPDATE orders"}),
]
SERVICES = tuple(dict.fromkeys(span[0] for span in ORDER))
RARE = 0.0001  # share of orders that fail, and take 200 times as long


def attributes(of: dict[str, str | int], order: int) -> list[KeyValue]:
    """Give attributes as OTLP's."""
    values = {key: order if value == "{order}" else value for key, value in of.items()}
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def trace(order: int, start: int) -> list[Span]:
    """Make one order's spans."""
    trace_id, ids = os.urandom(16), [os.urandom(8) for _ in ORDER]
    is_rare = random.random() < RARE
    pace = MS * (200 if is_rare else random.uniform(0.5, 3))
    spans = []
    for index, (_, name, kind, parent, begin, end, of) in enumerate(ORDER):
        span = Span(
            trace_id=trace_id,
            span_id=ids[index],
            parent_span_id=b"" if parent < 0 else ids[parent],
            name=name,
            kind=kind,  # type: ignore[arg-type]
            start_time_unix_nano=start + int(begin * pace),
            end_time_unix_nano=start + int(end * pace),
            attributes=attributes(of, order),
            flags=0x101,
        )
        if is_rare and parent < 0:
            span.status.code = 2  # type: ignore[assignment]
        spans.append(span)
    return spans


def requests_of(first: int, starts: list[int]) -> list[tuple[bytes, int]]:
    """Encode the requests of a chunk of traces, each service its own, with the number of spans in each."""
    traces = [trace(first + index, start) for index, start in enumerate(starts)]
    requests = []
    for service in SERVICES:
        spans = [span for spans in traces for span, of in zip(spans, ORDER, strict=True) if of[0] == service]
        for at in range(0, len(spans), BATCH):
            message = ExportTraceServiceRequest()
            batch = message.resource_spans.add()
            batch.resource.attributes.extend(
                attributes(
                    {
                        "service.name": service,
                        "service.namespace": "shop",
                        "service.version": "1.0.0",
                        "service.instance.id": f"{service}-1",
                        "deployment.environment.name": "local",
                        "telemetry.sdk.language": "python",
                        "telemetry.sdk.name": "opentelemetry",
                        "telemetry.sdk.version": "1.45.1",
                    },
                    0,
                )
            )
            group = batch.scope_spans.add()
            group.scope.name = "opentelemetry.instrumentation.flask"
            group.spans.extend(spans[at : at + BATCH])
            requests.append((gzip.compress(message.SerializeToString(), 1), len(group.spans)))
    return requests


def encode(spans: int) -> list[tuple[bytes, int]]:
    """Encode about so many spans."""
    traces = spans // len(ORDER)
    begin, step = time.time_ns() - HOURS * 3600 * 1000 * MS, HOURS * 3600 * 1000 * MS // traces
    chunks = range(0, traces, CHUNK)
    starts = [[begin + step * index for index in range(at, min(at + CHUNK, traces))] for at in chunks]
    with ProcessPoolExecutor() as pool:
        encoded = pool.map(requests_of, chunks, starts, chunksize=16)
        return [request for chunk in encoded for request in chunk]


class Backend:
    """An embedded backend of its own, with an empty file."""

    def __init__(self, folder: Path) -> None:
        self.otlp, self.jaeger, loki = ports.free(3)
        self.database = folder / "embedded.sqlite"
        self._log = (folder / "log").open("w")
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT / "services"),
            "OTLP_PORT": str(self.otlp),
            "JAEGER_PORT": str(self.jaeger),
            "LOKI_PORT": str(loki),
            "EMBEDDED_DATABASE": str(self.database),
            "MAX_DATABASE_MB": os.environ.get("MAX_DATABASE_MB", "8192"),
        }
        self.http = urllib3.PoolManager(retries=False, timeout=60)

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready."""
        self.process = processes.start(
            [sys.executable, "-m", "observability.embedded"], cwd=PROJECT, env=self._environment, stdout=self._log
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if self.http.request("GET", f"http://127.0.0.1:{self.otlp}/ready").status == HTTPStatus.OK:
                    return self
            time.sleep(0.05)
        processes.end(self.process)
        raise TimeoutError("the embedded backend is not ready after 20 s")

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        processes.end(self.process, 30)
        self._log.close()

    def metric(self, name: str) -> float:
        """Read one of its metrics."""
        text = self.http.request("GET", f"http://127.0.0.1:{self.otlp}/metrics").data.decode()
        return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)

    def memory(self, which: str) -> int:
        """Say how many megabytes it has in memory: `VmRSS` now, `VmHWM` at most so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(which):
                return int(line.split()[1]) // 1024
        return 0

    def cpu(self) -> float:
        """Say how many seconds of a processor it has used: what a busy machine does not change much."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def search(self, path: str, **params: object) -> tuple[float, int]:
        """Ask Jaeger's API; the time in milliseconds, and how much was found."""
        url = f"http://127.0.0.1:{self.jaeger}{path}?{urlencode(params)}"
        began = time.perf_counter()
        answer = self.http.request("GET", url)
        took = (time.perf_counter() - began) * 1000
        return took, len(json.loads(answer.data)["data"] or [])


def send(backend: Backend, requests: list[tuple[bytes, int]], senders: int) -> tuple[int, int]:
    """Send all requests; give how many were told to come again, and at most how much waited, in bytes."""
    queue: Queue[tuple[bytes, int]] = Queue()
    for request in requests:
        queue.put(request)
    refused = [0]

    def work() -> None:
        pool = urllib3.PoolManager(retries=False, timeout=60)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        with contextlib.suppress(Empty):
            while True:
                body, _ = queue.get_nowait()
                while True:
                    answer = pool.request(
                        "POST", f"http://127.0.0.1:{backend.otlp}/v1/traces", body=body, headers=headers
                    )
                    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        break
                    refused[0] += 1
                    time.sleep(0.05)
                if answer.status != HTTPStatus.OK or answer.data not in ALL_TAKEN:
                    raise RuntimeError(f"{answer.status}: {answer.data[:200]!r}")

    threads = [threading.Thread(target=work) for _ in range(senders)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, int(backend.metric("embedded_queue_bytes")))
        time.sleep(1)
    return refused[0], most


def questions(orders: int) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Give what is asked: a name, a path, and parameters that differ a little each time."""
    now = time.time_ns() // 1000
    window = {"start": now - 24 * 3600 * 10**6, "end": now, "limit": 20}
    earlier = now - random.randrange(2, HOURS - 1) * 3600 * 10**6
    order = random.randrange(orders)
    shop = {"service": "order-service", **window}
    yield "a service's newest", "/api/traces", shop
    yield "a service's newest of an hour", "/api/traces", {**shop, "start": earlier - 3600 * 10**6, "end": earlier}
    yield "an operation's newest", "/api/traces", {**shop, "operation": "settle order"}
    yield "one order by its id", "/api/traces", {**shop, "tags": json.dumps({"shop.order.id": str(order)})}
    yield "a common tag", "/api/traces", {**shop, "tags": '{"http.response.status_code":"201"}'}
    yield (
        "two common tags and an operation",
        "/api/traces",
        {**shop, "operation": "POST /orders/", "tags": '{"http.request.method":"GET","shop.order.status":"PAID"}'},
    )
    yield "a tag that nothing has", "/api/traces", {**shop, "tags": '{"shop.order.id":"-1"}'}
    yield "a common tag and one that nothing has", "/api/traces", {**shop, "tags": '{"span.kind":"server","no":"no"}'}
    yield "a resource's tag", "/api/traces", {**shop, "tags": '{"service.namespace":"shop"}'}
    yield "errors", "/api/traces", {**window, "service": "nginx", "tags": '{"error":"true"}'}
    yield "the slow ones", "/api/traces", {**shop, "minDuration": "2s"}
    yield "slower than any", "/api/traces", {**shop, "minDuration": "1m"}
    yield "an operation's slow ones", "/api/traces", {**shop, "operation": "settle order", "minDuration": "2s"}
    yield "between two durations", "/api/traces", {**shop, "minDuration": "40ms", "maxDuration": "50ms"}
    yield "between, where none is", "/api/traces", {**shop, "minDuration": "200ms", "maxDuration": "210ms"}
    yield "a service that is not there", "/api/traces", {**window, "service": "none"}
    yield "the services", "/api/services", {}
    yield "a service's operations", "/api/services/order-service/operations", {}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000, help="how many to store (default 1,000,000)")
    parser.add_argument("--senders", type=int, default=4, help="how many send at once (default 4)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each question is asked (default 20)")
    chosen = parser.parse_args()
    processes.hear_ctrl_c()
    requests = encode(chosen.spans)
    spans = sum(count for _, count in requests)
    with tempfile.TemporaryDirectory() as folder, Backend(Path(folder)) as backend:
        began, cpu = time.perf_counter(), backend.cpu()
        print(f"empty: {backend.memory('VmRSS')} MB")
        refused, most = send(backend, requests, chosen.senders)
        while backend.metric("embedded_spans_stored_total") < spans:
            time.sleep(0.1)
        took, cpu = time.perf_counter() - began, backend.cpu() - cpu
        del requests
        size = backend.metric("embedded_database_bytes") / 1e6
        print(f"{spans:,} spans in {took:.1f} s: {spans / took:,.0f} spans/s")
        print(f"processor: {cpu * 1e6 / spans:.0f} us a span, {cpu / took:.0%} of one")
        print(f"told to come again: {refused}; waiting at most: {most / 1e6:.1f} MB")
        print(f"file: {size:,.0f} MB, {size * 1e6 / spans:.0f} bytes a span")
        print(f"memory: {backend.memory('VmRSS')} MB, at most {backend.memory('VmHWM')} MB")
        times: dict[str, list[float]] = {}
        found: dict[str, int] = {}
        for _ in range(chosen.rounds):
            for name, path, params in questions(spans // len(ORDER)):
                milliseconds, found[name] = backend.search(path, **params)
                times.setdefault(name, []).append(milliseconds)
        print(f"\n| {'question':<40} | found | p50 ms | max ms |\n|---|---|---|---|")
        for name, of in times.items():
            print(f"| {name:<40} | {found[name]} | {statistics.median(of):.1f} | {max(of):.1f} |")
        milliseconds, _ = backend.search("/api/dependencies")
        print(f"| {'the dependencies of a day':<40} | 4 | {milliseconds:.0f} | |")
        print(f"\nmemory after: {backend.memory('VmRSS')} MB, at most {backend.memory('VmHWM')} MB")


if __name__ == "__main__":
    main()
