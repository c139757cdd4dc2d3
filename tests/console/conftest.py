"""The console with stand-ins for what it asks: the gateway, Jaeger, Loki and Prometheus, all on one port."""

import json
import re
import shutil
import time
from functools import partial

import pytest
import structlog
from playwright.sync_api import sync_playwright
from pytest_httpserver import HTTPServer
from werkzeug import Response

from local import rundir
from observability.console.app import create_app
from observability.console.settings import ConsoleSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
START = time.time() - 30


def span(number, parent, service, name, start, duration, **tags):
    """A span as Jaeger gives it; times in milliseconds after START."""
    tags = {"span.kind": "server", **{key.replace("__", "."): value for key, value in tags.items()}}
    return {
        "traceID": TRACE,
        "spanID": f"{number:016x}",
        "operationName": name,
        "references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{parent:016x}"}] if parent else [],
        "startTime": int((START + start / 1e3) * 1e6),
        "duration": int(duration * 1e3),
        "tags": [{"key": key, "type": "string", "value": value} for key, value in tags.items()],
        "logs": [],
        "processID": service,
    }


def trace(*spans):
    return {
        "traceID": TRACE,
        "spans": list(spans),
        "processes": {each["processID"]: {"serviceName": each["processID"]} for each in spans},
    }


def order(number=7, **changes):
    product = {"id": 1, "sku": "KIT-MUG-001", "name": "Stoneware mug", "currency": "EUR", "unit_price_minor": 1450}
    placed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START))
    return {
        "id": number,
        "status": "PAID",
        "product": product,
        "quantity": 1,
        "payment_id": 3,
        "created_at": placed,
    } | changes


class Apis:
    """What the stand-ins answer; a test changes it."""

    def __init__(self, server):
        self.server = server
        self.orders = {7: order()}
        self.trace = trace(
            span(1, 0, "nginx", "POST /orders/", 0, 99),
            span(2, 1, "order-service", "POST /orders/", 1, 97, shop__order__id=7),
            span(3, 2, "order-service", "INSERT orders", 10, 40),
        )
        self.lines = [
            self.line(2, "order-service", "order.created", 15),
            self.line(1, "nginx", "request.completed", 98),
        ]
        self.loki_says = None
        self.series = [{"metric": {"job": "order-service"}, "value": [START, "1"], "values": [[START, "1"]]}]
        self.alerts = []
        self.odd = {}  # a path's beginning or a query, and what is answered to it instead, or what makes that
        self.seen = []
        self.calls = [{"parent": "nginx", "child": "order-service", "callCount": 3}]
        self.placed, self.keys, self.logins = [], [], []
        for path, answer in {
            "/auth/login": self._login,
            "/products/": lambda _: {"items": [order()["product"]], "next_cursor": None},
            "/orders/": self._orders,
            re.compile(r"/orders/\d+"): self._order,
            re.compile("/api/traces.*"): lambda _: {"data": [self.trace] if self.trace else []},
            "/api/services": lambda _: {"data": ["nginx", "order-service"]},
            "/api/operations": lambda _: {"data": [{"name": "POST /orders/", "spanKind": "server"}]},
            "/api/dependencies": lambda _: {"data": self.calls},
            "/loki/api/v1/query_range": self._loki,
            "/api/v1/alerts": lambda _: {"status": "success", "data": {"alerts": self.alerts}},
            "/api/v1/query_exemplars": lambda _: {"status": "success", "data": []},
            re.compile("/api/v1/query.*"): self._prometheus,
            re.compile("/api/v1/label/.*"): lambda _: {"status": "success", "data": ["order-service"]},
        }.items():
            server.expect_request(path).respond_with_handler(partial(self._answered, answer))

    def _answered(self, answer, request):
        self.seen.append((request.method, request.path))
        said = f"{request.path}?query={request.args.get('query', '')}"
        found = next((odd for part, odd in self.odd.items() if part in said), None)
        found = answer if found is None else found
        found = found(request) if callable(found) and not isinstance(found, Response) else found
        return found if isinstance(found, Response) else Response(json.dumps(found))

    def line(self, number, service, event, at, **fields):
        said = {"level": "info", "service": service, "event": event, "span_id": f"{number:016x}", **fields}
        return str(int((START + at / 1e3) * 1e9)), json.dumps(said)

    def _login(self, request):
        self.logins.append(request.json)
        if request.json["password"] != "password":
            return Response(json.dumps({"detail": "Wrong credentials."}), 401)
        return {"token": f"token-of-{request.json['username']}"}

    def _orders(self, request):
        if request.headers.get("Authorization") != "Bearer token-of-admin":
            return Response("{}", 401)
        if request.method == "POST":
            self.placed.append(request.json)
            self.keys.append(request.headers["Idempotency-Key"])
            return Response(json.dumps(order(8)), 201)
        return {"items": list(self.orders.values()), "next_cursor": None}

    def _order(self, request):
        found = self.orders.get(int(request.path.rpartition("/")[2]))
        return found or Response("{}", 404)

    def _loki(self, request):
        if self.loki_says:
            return Response(self.loki_says, 400)
        if "step" in request.args:  # asked for where the query is a metric
            return {"status": "success", "data": {"resultType": "matrix", "result": self.series}}
        labels = {"service_name": "order-service", "level": "info", "trace_id": TRACE}
        result = [{"stream": labels, "values": self.lines}]
        return {"status": "success", "data": {"resultType": "streams", "result": result}}

    def _prometheus(self, _request):
        return {"status": "success", "data": {"resultType": "vector", "result": self.series}}


@pytest.fixture(autouse=True)
def plain_tracebacks():
    """Those with all variables take a second to write."""
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")  # while it runs, no other test of this process could use asyncio
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: `apt-get install chromium`, or yours")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_tab(browser):
    """Open a page of a console; its errors, refusals by the policy and requests to others fail the test."""
    contexts, wrong = [], []

    def opened(root, **how):
        contexts.append(browser.new_context(base_url=root, **{"viewport": {"width": 1280, "height": 900}, **how}))
        tab = contexts[-1].new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        tab.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(root) else None)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="session")
def server():
    with HTTPServer(threaded=True) as started:  # one for all: each takes half a second to stop
        yield started


@pytest.fixture
def apis(server):
    server.clear()
    return Apis(server)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}\x1b[2J\u202egnp.exe"


@pytest.fixture
def hostile(apis, flags_file):
    """Hostile text in each field of each answer and in the file of flags, some of it large."""
    about = {"kind": HOSTILE, "description": HOSTILE * 1000}
    flag = {"state": "ENABLED", "variants": {HOSTILE: 1, "off": 0}, "defaultVariant": HOSTILE, "metadata": about}
    flags_file.write_text(json.dumps({"flags": {HOSTILE: flag}}))
    apis.trace = trace(
        span(1, 0, HOSTILE, HOSTILE, 0, 99, shop__order__id=7, **{HOSTILE: HOSTILE}),
        span(2, 1, HOSTILE, HOSTILE * 1000, 1, 9, big="<b>" * 300_000),
    )
    apis.orders = {7: order(status=HOSTILE, product={"name": HOSTILE, "currency": HOSTILE, "unit_price_minor": 1})}
    apis.lines = [apis.line(1, HOSTILE, HOSTILE, 5, **{HOSTILE: HOSTILE}), (str(int(START * 1e9)), HOSTILE * 10_000)]
    apis.series = [
        {"metric": {"job": HOSTILE, "peer_service": HOSTILE}, "value": [START, "1"], "values": [[START, "1"]]}
    ]
    labels = {"alertname": HOSTILE, "severity": HOSTILE}
    apis.alerts = [{"labels": labels, "state": "firing", "annotations": {"summary": HOSTILE}}]
    apis.calls = [{"parent": HOSTILE, "child": "order-service", "callCount": 1}]


@pytest.fixture
def flags_file(tmp_path):
    """A file of flags of the services, all off."""
    path = tmp_path / "flags" / "flags.json"
    rundir.switch_faults_off(path)
    return path


@pytest.fixture
def console_app(apis, flags_file):
    """Make the console; arguments are settings."""

    def make(**settings):
        root = f"http://127.0.0.1:{apis.server.port}"
        urls = dict.fromkeys(("gateway_url", "jaeger_url", "loki_url", "prometheus_url"), root)
        return create_app(ConsoleSettings(**urls | {"flags_file": flags_file} | settings))

    return make


@pytest.fixture
def console(console_app):
    """Make the console's client; arguments are settings."""
    return lambda **settings: console_app(**settings).test_client()


@pytest.fixture
def page(console):
    """Get a page's text; it must be there."""
    client = console()

    def get(path):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    return get
