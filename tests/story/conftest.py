"""A stand-in for each thing that a story asks: Jaeger, Loki, and the database's container behind `docker`."""

import json
import re
import time

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from observability.story.cli import main

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LATE = "00000000000000000000000000000abc"
START = time.time() - 60
ROW = {
    "id": 7,
    "product": {"sku": "KIT-MUG-001"},
    "status": "PAID",
    "created_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START)),
    "traceparent": f"00-{TRACE}-0000000000000002-03",
}


def span(number, parent, service, name, kind, start, duration, trace=TRACE, **tags):
    """A span as Jaeger gives it; times in milliseconds after START."""
    reference = {"refType": "CHILD_OF", "traceID": trace, "spanID": f"{parent:016x}"}
    tags = {"span.kind": kind, **{name.replace("__", "."): value for name, value in tags.items()}}
    return {
        "traceID": trace,
        "spanID": f"{number:016x}",
        "operationName": name,
        "references": [reference] if parent else [],
        "startTime": int((START + start / 1e3) * 1e6),
        "duration": int(duration * 1e3),
        "tags": [{"key": key, "type": "string", "value": value} for key, value in tags.items()],
        "logs": [],
        "processID": service,
        "service": service,
    }


def order_spans():
    return [
        span(1, 0, "nginx", "POST /orders/", "server", 0, 99, http__response__status_code=201),
        span(2, 1, "order-service", "POST /orders/", "server", 1, 97, shop__order__id=7, shop__order__status="PAID"),
        span(3, 2, "order-service", "GET /products/{product_id}", "client", 2, 5, peer__service="product-service"),
        span(4, 3, "product-service", "GET /products/{product_id}", "server", 3, 2),
        span(5, 2, "order-service", "INSERT orders", "client", 10, 4, db__system__name="postgresql"),
        span(6, 2, "order-service", "settle order", "internal", 20, 70, shop__order__id=7),
    ]


def line(number, service, event, at, trace=TRACE, **fields):
    said = {"timestamp": "2026-11-22T14:15:32Z", "level": "info", "service": service, "event": event}
    said |= {"trace_id": trace, "span_id": f"{number:016x}", **fields}
    return int((START + at / 1e3) * 1e9), json.dumps(said)


def order_lines():
    return [
        line(1, "nginx", "request.completed", 99, status=201),
        line(4, "product-service", "request.completed", 5),
        line(2, "order-service", "order.created", 15, order_id=7),
        line(2, "order-service", "request.completed", 98),
    ]


class Shop:
    """What the stand-ins know. A function in place of a list is called for each question."""

    def __init__(self, server):
        self.server = server
        self.rows = {7: ROW}
        self.spans, self.lines = order_spans(), order_lines()
        self.asked = []
        server.expect_request(re.compile(r"/api/traces/[0-9a-f]{32}")).respond_with_handler(self._trace)
        server.expect_request("/api/traces").respond_with_handler(self._search)
        server.expect_request("/loki/api/v1/query_range").respond_with_handler(self._query)

    def _now(self, known):
        return known() if callable(known) else known

    def _traces(self, keep):
        by_id = {}
        for one in self._now(self.spans):
            by_id.setdefault(one["traceID"], []).append(one)
        return [
            {
                "traceID": trace_id,
                "spans": spans,
                "processes": {s["service"]: {"serviceName": s["service"]} for s in spans},
            }
            for trace_id, spans in by_id.items()
            if keep(spans)
        ]

    def _trace(self, request):
        self.asked.append(request.path)
        found = self._traces(lambda spans: spans[0]["traceID"] == request.path.rpartition("/")[2])
        if not found:
            return _json({"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}, 404)
        return _json({"data": found})

    def _search(self, request):
        self.asked.append(request.full_path)
        start, end = int(request.args["start"]), int(request.args["end"])
        assert request.args["service"] == "order-service"
        wanted = json.loads(request.args["tags"])

        def keep(spans):
            return any(
                start <= one["startTime"] <= end
                and any({tag["key"]: str(tag["value"])} == wanted for tag in one["tags"])
                for one in spans
            )

        return _json({"data": self._traces(keep)})

    def _query(self, request):
        self.asked.append(request.full_path)
        assert request.args["direction"] == "forward"
        trace_id = re.fullmatch(r'\{service_namespace="shop"\} \| trace_id="([0-9a-f]{32})"', request.args["query"])[1]
        start, end = int(request.args["start"]), int(request.args["end"])
        streams = {}
        for at, text in self._now(self.lines):
            if start <= at < end and (not text.startswith("{") or json.loads(text)["trace_id"] == trace_id):
                service = json.loads(text)["service"] if text.startswith("{") else "order-service"
                streams.setdefault(service, []).append([str(at), text])
        result = [{"stream": {"service_name": name}, "values": values} for name, values in streams.items()]
        return _json({"status": "success", "data": {"resultType": "streams", "result": result}})


def _json(body, status=200):
    return Response(json.dumps(body), status, content_type="application/json")


@pytest.fixture
def backends():
    with HTTPServer() as server:
        yield server
        server.check_assertions()


@pytest.fixture
def shop(backends, tmp_path, monkeypatch):
    """No local stack, and a `docker` that answers as psql in the container would."""
    shop = Shop(backends)
    root = backends.url_for("").rstrip("/")
    for name, value in {"RUN_DIR": str(tmp_path / "run"), "JAEGER_URL": root, "LOKI_URL": f"{root}/"}.items():
        monkeypatch.setenv(name, value)
    rows = tmp_path / "rows"
    rows.mkdir()
    for number, row in shop.rows.items():
        (rows / str(number)).write_text(json.dumps(row) + "\n")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nfor last; do :; done\ncat "{rows}/${{last##*= }}" 2>/dev/null; exit 0\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    shop.docker, shop.row_file = docker, rows / "7"
    return shop


@pytest.fixture
def tell(shop, capsys):
    """Tell a story: `tell("--order", "7")` gives (exit status, stdout, stderr)."""

    def run(*arguments, wait="0"):
        try:
            status = main([*arguments, "--wait", wait])
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
