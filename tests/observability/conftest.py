"""The real backends' programs with this project's configuration, each in a folder and on ports of its own."""

import os
import socket
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fixtures.otlp import Receiver, records
from tests.fixtures.ports import free_ports
from tests.fixtures.programs import find_program
from tests.fixtures.services import eventually, sample

OBSERVABILITY = Path(__file__).parents[2] / "observability"


@pytest.fixture(scope="session")
def program():
    """Path of a backend's program: `program("jaeger")`."""
    return find_program


class Backends(Receiver):
    """Jaeger, Loki, Prometheus and gateway-telemetry in one: an HTTP server that keeps the OTLP it is sent, by path.

    Attributes:
        status: What it answers; anything but 200 keeps nothing.
    """

    def __init__(self):
        self.bodies = defaultdict(list)
        self.status = 200
        super().__init__()

    def _take(self, request, body):
        if self.status == 200:
            self.bodies[request.path].append(body)
        request.answer(self.status)

    def _received(self, path, kind):
        return [found for body in list(self.bodies[path]) for found in records(kind.FromString(body))]

    def lines(self, backend="loki"):
        """The log records so far: [(resource's attributes, record)]."""
        received = self._received(f"/{backend}/v1/logs", ExportLogsServiceRequest)
        return [(resource, record) for resource, _, record in received]

    def traces(self):
        """The spans so far: [(resource's attributes, scope, span)]."""
        return self._received("/jaeger/v1/traces", ExportTraceServiceRequest)

    def spans(self):
        """The spans so far."""
        return [span for _, _, span in self.traces()]

    def metrics(self, name):
        """What was sent of a metric, in the order in which it came: [(resource's attributes, metric)]."""
        received = self._received("/prometheus/v1/metrics", ExportMetricsServiceRequest)
        return [(resource, metric) for resource, _, metric in received if metric.name == name]


class Collector:
    """The Collector with this project's configuration, which sends everything to `backends`."""

    def __init__(self, program, folder, backends, sampling="keep-all", settings=()):
        ports = free_ports(5)
        self.otlp, _, self.fluent, self._telemetry, self._health = ports
        names = ("OTLP_PORT", "OTLP_GRPC_PORT", "FLUENT_PORT", "TELEMETRY_PORT", "HEALTH_PORT")
        configuration = OBSERVABILITY / "collector"
        self._command = [
            program,
            f"--config={configuration / 'config.yaml'}",
            f"--config={configuration / f'{sampling}.yaml'}",
            "--feature-gates=transform.flatten.logs",
            *(f"--set={setting}" for setting in settings),
        ]
        self._environment = {
            "LISTEN_HOST": "127.0.0.1",
            "QUEUE_DIRECTORY": str(folder / "queue"),
            **{name: str(port) for name, port in zip(names, ports, strict=True)},
            "JAEGER_ENDPOINT": f"{backends.endpoint}/jaeger",
            "LOKI_ENDPOINT": f"{backends.endpoint}/loki",
            "GATEWAY_TELEMETRY_ENDPOINT": f"{backends.endpoint}/gateway",
            "PROMETHEUS_ENDPOINT": f"{backends.endpoint}/prometheus",
        }
        self.log = folder / "collector.log"
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        eventually(self._healthy, 20)

    def _healthy(self):
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return requests.get(f"http://127.0.0.1:{self._health}", timeout=2).ok
        except requests.ConnectionError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def send_lines(self, tag, *lines):
        """Send lines as Docker's log driver does."""
        with socket.create_connection(("127.0.0.1", self.fluent), 5) as connection:
            for line in lines:
                record = {"container_id": "0" * 64, "container_name": "/shop-1", "source": "stdout", "log": line}
                connection.sendall(_packed([tag, int(time.time()), record]))

    def send_spans(self, *spans, service="order-service"):
        """Send spans as a service does: dicts of name, attributes, and what else differs."""
        trace = {
            "resource": {
                "attributes": [attribute("service.name", service), attribute("service.instance.id", "random")]
            },
            "scopeSpans": [{"spans": [span_json(**span) for span in spans]}],
        }
        self.send_traces({"resourceSpans": [trace]})

    def send_traces(self, message):
        """Send a whole message, in OTLP's JSON."""
        requests.post(f"http://127.0.0.1:{self.otlp}/v1/traces", json=message, timeout=5).raise_for_status()

    def metric(self, name, **labels):
        """One of the Collector's own metrics."""
        return sample(requests.get(f"http://127.0.0.1:{self._telemetry}/metrics", timeout=5).text, name, **labels)


def attribute(key, value):
    return {"key": key, "value": {"intValue": value} if isinstance(value, int) else {"stringValue": value}}


def span_json(name, trace_id=None, duration_ms=10, attributes=None, **other):
    """A span in OTLP's JSON."""
    now = time.time_ns()
    return {
        "traceId": trace_id or os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": name,
        "kind": 2,
        "startTimeUnixNano": str(now - duration_ms * 1_000_000),
        "endTimeUnixNano": str(now),
        "attributes": [attribute(*item) for item in (attributes or {}).items()],
        **other,
    }


def _packed(value):
    """The value in MessagePack, as far as Docker's log driver uses it."""
    if isinstance(value, str):
        return b"\xdb" + len(value.encode()).to_bytes(4, "big") + value.encode()
    if isinstance(value, int):
        return b"\xce" + value.to_bytes(4, "big")
    if isinstance(value, dict):
        return bytes([0x80 + len(value)]) + b"".join(_packed(part) for item in value.items() for part in item)
    return bytes([0x90 + len(value)]) + b"".join(map(_packed, value))


@pytest.fixture
def backends():
    running = Backends()
    yield running
    running.stop()


@pytest.fixture
def start_collector(program, backends, tmp_path):
    """Start Collectors that send to `backends`: `start_collector()`, or with the name of a sampling."""
    started = []

    def start(sampling="keep-all", *settings):
        folder = tmp_path / f"collector-{len(started)}"
        folder.mkdir()
        started.append(Collector(program("otelcol"), folder, backends, sampling, settings))
        return started[-1]

    yield start
    for collector in started:
        collector.kill()


@pytest.fixture
def collector(start_collector):
    return start_collector()
