"""How soon an order can be seen, and how much of it: for any running stack, by its public APIs.

  1. time from the order's answer until its trace is complete in Jaeger's API, and its last log line is in Loki's;
  2. share of the orders placed under load whose trace is complete: one root, nothing dangling, every span and edge that
     observability/contract.yaml has for it, each once;
  3. spans and log lines of an order.

`python -m loadtest.visibility`. Local mode is the default; for Docker Compose: `--gateway http://localhost`.
"""

import argparse
import json
import queue
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import urllib3

from observability.contract import check_trace, load, spans_of

CONTRACT = load()
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Stack:
    """Where a stack is reached."""

    gateway: str
    jaeger: str
    loki: str


class Client:
    """A shopper who also looks at the traces and the logs."""

    def __init__(self, stack: Stack, connections: int) -> None:
        self._stack = stack
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=20, retries=False)
        login = self._pool.request(
            "POST", f"{stack.gateway}/auth/login", json={"username": "admin", "password": "password"}
        )
        self._headers = {"Authorization": f"Bearer {login.json()['token']}"}

    def order(self) -> tuple[str, float]:
        """Place an order: its trace id, and when it was answered.

        Raises:
            RuntimeError: It was not answered with 201.
        """
        answer = self._pool.request(
            "POST", f"{self._stack.gateway}/orders/", json={"product_id": 1}, headers=self._headers
        )
        answered = time.monotonic()
        if answer.status != HTTPStatus.CREATED:
            raise RuntimeError(f"an order was answered with {answer.status}")
        return answer.headers["traceresponse"].split("-")[1], answered

    def faults(self, trace_id: str) -> list[str]:
        """Say what the order's trace lacks by now."""
        answer = self._pool.request("GET", f"{self._stack.jaeger}/api/traces/{trace_id}")
        found = (answer.json().get("data") or []) if answer.status == HTTPStatus.OK else []
        return check_trace(CONTRACT, "order", list(spans_of(found[0]))) if found else ["there is no trace"]

    def spans(self, trace_id: str) -> int:
        """Count the trace's spans."""
        return len(self._pool.request("GET", f"{self._stack.jaeger}/api/traces/{trace_id}").json()["data"][0]["spans"])

    def lines(self, selector: str, trace_id: str) -> list[dict[str, Any]]:
        """Give the trace's log lines."""
        answer = self._pool.request(
            "GET",
            f"{self._stack.loki}/loki/api/v1/query_range",
            fields={"query": f'{selector} | trace_id="{trace_id}"', "since": "10m", "limit": "100"},
        )
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"Loki answered {answer.status}: {answer.data[:200]!r}")
        return [json.loads(value[1]) for stream in answer.json()["data"]["result"] for value in stream["values"]]


def seconds_until(condition: Callable[[], bool], since: float) -> float:
    """Poll until a condition holds and say how long that took; infinity if it does not."""
    while not condition():
        if time.monotonic() - since > PATIENCE_SECONDS:
            return float("inf")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - since


def freshness(client: Client, orders: int, at_once: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Place orders, a few at a time, and look for each until its trace and its last log line are there."""
    seen: dict[str, list[float]] = {"trace": [], "log line": []}

    def is_logged(trace_id: str) -> bool:
        lines = client.lines('{service_name="order-service"}', trace_id)
        return any(line["event"] == "request.completed" for line in lines)

    def look(_number: int) -> None:
        trace_id, answered = client.order()
        log = threading.Thread(
            target=lambda: seen["log line"].append(seconds_until(lambda: is_logged(trace_id), answered))
        )
        log.start()
        seen["trace"].append(seconds_until(lambda: not client.faults(trace_id), answered))
        log.join()
        if len(seen["trace"]) % 20 == 0:
            say(f"{len(seen['trace'])} of {orders} orders looked for")

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(look, range(orders)))
    return seen


def completeness(
    client: Client, orders: int, clients: int, say: Callable[[str], None]
) -> tuple[list[str], Counter[str]]:
    """Place orders with so many clients in a closed loop; give their trace ids, and what is wrong with how many."""
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        traces = [trace_id for trace_id, _ in pool.map(lambda _: client.order(), range(orders))]
    say(f"{orders} orders in {time.monotonic() - began:.1f} s; looking at their traces")
    ended = time.monotonic()
    missing: queue.SimpleQueue[str] = queue.SimpleQueue()

    def look(trace_id: str) -> None:
        if seconds_until(lambda: not client.faults(trace_id), ended) == float("inf"):
            for fault in client.faults(trace_id):
                missing.put(fault)
            missing.put("incomplete")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, traces))
    return traces, Counter(missing.get() for _ in range(missing.qsize()))


def quantile(values: list[float], share: float) -> float:
    """Give the value that so large a share does not exceed."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", default="http://localhost:8080", help="the shop (http://localhost:8080)")
    parser.add_argument("--jaeger", default="http://localhost:16686", help="Jaeger's API (http://localhost:16686)")
    parser.add_argument("--loki", default="http://localhost:3100", help="Loki's API (http://localhost:3100)")
    parser.add_argument("--fresh", type=int, default=200, help="orders that are looked for at once (200)")
    parser.add_argument("--at-once", type=int, default=2, help="of these, so many at a time (2)")
    parser.add_argument("--orders", type=int, default=1000, help="orders placed under load (1000)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once under load (8)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    arguments = parser.parse_args()
    client = Client(
        Stack(arguments.gateway, arguments.jaeger, arguments.loki), max(arguments.clients, arguments.at_once * 2)
    )

    def say(text: str) -> None:
        if not arguments.quiet:
            print(text, file=sys.stderr, flush=True)

    say("looking for single orders")
    seen = freshness(client, arguments.fresh, arguments.at_once, say)
    traces, wrong = completeness(client, arguments.orders, arguments.clients, say)
    sample = traces[:: max(1, len(traces) // 50)]
    numbers: dict[str, Any] = {
        f"seconds until the {what} is there, {name}": round(quantile(values, share), 3)
        for what, values in seen.items()
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    numbers |= {
        "orders under load": len(traces),
        "of these with a complete trace": len(traces) - wrong.pop("incomplete", 0),
        "spans of an order": statistics.fmean(client.spans(trace_id) for trace_id in sample),
        "log lines of an order": statistics.fmean(
            len(client.lines('{service_namespace="shop"}', trace_id)) for trace_id in sample
        ),
        "what is wrong": dict(wrong.most_common(10)),
    }
    if arguments.json:
        print(json.dumps(numbers, indent=2))
        return
    for name, value in numbers.items():
        print(f"{name:45} {value}")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, urllib3.exceptions.HTTPError) as error:
        sys.exit(f"This needs a running stack, see --help: {error}")
