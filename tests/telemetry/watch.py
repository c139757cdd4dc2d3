"""A running system and what watches it: the shop through its gateway, and the APIs of Jaeger, Loki and Prometheus."""

import contextlib
import json
import socket
import time

import psutil

from local.supervision import Supervisor
from observability.contract import SeenLine, metrics_of, spans_of
from tests.fixtures.services import Client, eventually

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
SERVICES = ("auth-service", "user-service", "product-service", "order-service", "payment-service")
PREFIXES = ("auth", "users", "products", "orders", "payments")


class Watched:
    """What is the same in both modes.

    Attributes:
        mode: `local` or `compose`.
        gateway: A client of the shop.
    """

    mode: str

    def __init__(self, gateway, jaeger, loki, prometheus):
        self.gateway = gateway
        self.jaeger = Client(jaeger)
        self.loki = Client(loki)
        self.prometheus = Client(prometheus)

    def close(self):
        for client in (self.jaeger, self.loki, self.prometheus):
            client.session.close()

    def frozen(self, *parts):
        """A context in which the parts' processes stand still."""
        raise NotImplementedError

    def expositions(self):
        """What each part shows on /metrics, as (the job that Prometheus knows it as, text)."""
        raise NotImplementedError

    def files(self):
        """Everything that was written to a log or kept by a backend, as it is in its file: name -> text."""
        raise NotImplementedError

    def doors(self):
        """Where bytes can be sent to: the gateway, and services that can be reached past it."""
        return [self.gateway.root]

    def raw(self, request, door, patience=0.5):
        """Send exactly these bytes, and read until the other side closes or loses patience; what came back."""
        host, _, port = door.removeprefix("http://").partition(":")
        received = b""
        with contextlib.suppress(OSError), socket.create_connection((host, int(port or 80)), patience) as connection:
            connection.sendall(request)
            while chunk := connection.recv(65536):
                received += chunk
                if received.endswith((b"}", b"}\n")):  # an answer of ours, after which the connection may stay open
                    break
        return received

    def query(self, statement):
        """Ask the order database as its owner."""
        raise NotImplementedError

    # What is known about it

    def trace(self, trace_id):
        """The spans of a trace, none if there is no such trace."""
        answer = self.jaeger.get(f"/api/traces/{trace_id}")
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        return [span for trace in answer.json()["data"] for span in spans_of(trace)]

    def spans(self, since):
        """All spans of all services since a time in seconds, and the text of what Jaeger said."""
        found, texts = {}, []
        for service in self.jaeger.get("/api/services").json()["data"]:
            for answer in self._search(service, int(since * 1e6), int(time.time() * 1e6)):
                texts.append(answer.text)
                for trace in answer.json()["data"]:
                    found |= {(span.trace_id, span.span_id): span for span in spans_of(trace)}
        return list(found.values()), texts

    def _search(self, service, start, end, limit=1000):
        """Search a time for all traces of a service, in halves if there are more than one answer holds."""
        query = {"service": service, "start": start, "end": end, "limit": limit}
        answer = self.jaeger.get("/api/traces", params=query)
        assert answer.status_code == 200, answer.text
        if len(answer.json()["data"]) < limit:
            yield answer
            return
        middle = (start + end) // 2
        yield from self._search(service, start, middle)
        yield from self._search(service, middle + 1, end)

    def lines(self, query, since, limit=5000):
        """Log lines since a time in seconds, oldest first."""
        found, start = {}, int(since * 1e9)
        while True:
            answer = self.loki.get(
                "/loki/api/v1/query_range",
                params={
                    "query": query,
                    "start": start,
                    "end": int((time.time() + 5) * 1e9),
                    "limit": limit,
                    "direction": "forward",
                },
                headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"},
            )
            assert answer.status_code == 200, answer.text
            batch = [
                (int(at), json.dumps(stream["stream"], sort_keys=True), text, (rest or [{}])[0])
                for stream in answer.json()["data"]["result"]
                for at, text, *rest in stream["values"]
            ]
            found |= {(at, labels, text): rest for at, labels, text, rest in batch}
            if len(batch) < limit:
                break
            start = max(at for at, *_ in batch)
        return [
            SeenLine(json.loads(labels), rest.get("structuredMetadata", {}), text)
            for (_, labels, text), rest in sorted(found.items())
        ]

    def metrics(self):
        """All metrics of all parts, and the texts."""
        expositions = list(self.expositions())
        return [one for job, text in expositions for one in metrics_of(job, text)], [text for _, text in expositions]

    def series(self):
        """The labels of all series in Prometheus that a scrape brought."""
        scraped = '{job!="",__name__!~"(up|scrape_.*|.*:.*|ALERTS.*)"}'
        answer = self.prometheus.get("/api/v1/series", params={"match[]": scraped})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def wait_until_seen(self, seconds=20):
        """Wait until all that the shop has said so far can be found: what each part said last is the last to come."""
        since = time.time() - 60
        for prefix, service in zip(PREFIXES, SERVICES, strict=True):
            answer = self.gateway.get(f"/{prefix}/openapi.json")
            trace_id = answer.headers["traceresponse"].split("-")[1]
            eventually(lambda trace_id=trace_id: len(self.trace(trace_id)) >= 2, seconds, pause=0.05)
            for name in ("nginx", service):
                query = f'{{service_name="{name}"}} | trace_id="{trace_id}"'
                eventually(lambda query=query: self.lines(query, since), seconds, pause=0.05)


class WatchedLocally(Watched):
    """A stack of local mode."""

    mode = "local"

    def __init__(self, stack):
        self._stack = stack
        super().__init__(stack.gateway, stack.jaeger_url, stack.loki_url, stack.prometheus_url)

    @contextlib.contextmanager
    def frozen(self, *parts):
        processes = []
        running = Supervisor.find(self._stack.run_dir).states()
        for part in parts:
            process = psutil.Process(running[part]["pid"])
            process.suspend()  # first, so that it makes no more children
            processes += [process, *process.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()

    def doors(self):
        return [*super().doors(), f"http://127.0.0.1:{self._stack.ports['ORDER']}"]

    def query(self, statement):
        return self._stack.query(statement)

    def expositions(self):
        ports = {service: self._stack.ports[service.removesuffix("-service").upper()] for service in SERVICES}
        ports |= {"nginx": self._stack.ports["GATEWAY_TELEMETRY"], "embedded-backend": self._stack.ports["OTLP"]}
        for job, port in ports.items():
            client = Client(f"http://127.0.0.1:{port}")
            answer = client.get("/metrics", headers=OPENMETRICS)
            client.session.close()
            assert answer.status_code == 200, f"{job}: {answer.text}"
            yield job, answer.text

    def files(self):
        run_dir = self._stack.run_dir
        found = [path for name in ("logs", "telemetry", "prometheus", "conf") for path in (run_dir / name).rglob("*")]
        return {str(path.relative_to(run_dir)): path.read_bytes().decode("latin-1") for path in found if path.is_file()}
