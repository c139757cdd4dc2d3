"""What is sent to both, the embedded backend and the real ones: spans of every kind, as OTLP."""

import random
import time
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

MS = 1_000_000
KINDS = {"": 0, "internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
LEVELS = {"debug": 5, "info": 9, "warning": 13, "error": 17}


def value(of):
    """A Python value as OTLP's."""
    if isinstance(of, list):
        return AnyValue(array_value=ArrayValue(values=[value(one) for one in of]))
    if isinstance(of, dict):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(of)))
    return AnyValue() if of is None else AnyValue(**{FIELDS[type(of)]: of})


def attributes(of):
    return [KeyValue(key=key, value=value(one)) for key, one in of.items()]


@dataclass
class Trace:
    """A trace in the making: `add` gives each span's id, `request` one OTLP request a service.

    Its ids are random, or come from `ids`: `random.Random("a name")` makes the same each time.
    """

    start: int = field(default_factory=lambda: time.time_ns() - 2000 * MS)
    ids: random.Random = field(default_factory=random.SystemRandom)
    id: bytes = b""
    spans: list = field(default_factory=list)

    def __post_init__(self):
        self.id = self.id or self.ids.randbytes(16)

    @property
    def hex(self):
        return self.id.hex()

    def add(self, service, name, kind="internal", *, parent=b"", at=0, ms=1.0, tags=None, scope="shop", **more):
        """Add a span that begins `at` ms after the trace and takes `ms`."""
        begin = self.start + int(at * MS)
        span = Span(
            trace_id=self.id,
            span_id=self.ids.randbytes(8),
            parent_span_id=parent,
            name=name,
            kind=KINDS[kind],
            start_time_unix_nano=begin,
            end_time_unix_nano=begin + int(ms * MS),
            attributes=attributes(tags or {}),
            flags=0x101,
            **more,
        )
        self.spans.append((service, scope, span))
        return span.span_id

    def requests(self):
        """One request for each service, as each exports its own spans."""
        return [
            request([one for one in self.spans if one[0] == service], service)
            for service in dict.fromkeys(service for service, _, _ in self.spans)
        ]


def resource(service, **more):
    return {
        "service.name": service,
        "service.namespace": "shop",
        "deployment.environment.name": "test",
        "service.instance.id": f"{service}-1",
        "telemetry.sdk.language": "python",
        **more,
    }


def request(spans, service, **more):
    """An export request of one service's `(service, scope, span)`."""
    message = ExportTraceServiceRequest()
    batch = message.resource_spans.add()
    batch.resource.attributes.extend(attributes(resource(service, **more)))
    for scope in dict.fromkeys(scope for _, scope, _ in spans):
        group = batch.scope_spans.add()
        if scope:
            group.scope.name = scope
            group.scope.version = "1.0"
        group.spans.extend(span for _, of, span in spans if of == scope)
    return message


def event(name, at, **fields):
    return Span.Event(name=name, time_unix_nano=at, attributes=attributes(fields))


def http(method, route, status, **more):
    return {"http.request.method": method, "http.route": route, "http.response.status_code": status, **more}


def order(order_id=7, **kwargs):
    """The trace of one order, as the shop's services export it."""
    trace = Trace(**kwargs)
    tags = {"shop.order.id": order_id, "shop.order.status": "PAID"}
    database = {"db.system.name": "postgresql", "db.namespace": "orders_user", "server.port": 5433}
    root = trace.add("nginx", "POST /orders/", "server", ms=31.4, tags=http("POST", "/orders/", 201))
    server = trace.add(
        "order-service",
        "POST /orders/",
        "server",
        parent=root,
        at=0.4,
        ms=30,
        tags=http("POST", "/orders/", 201, **tags, **{"shop.order.quantity": 1}),
        scope="opentelemetry.instrumentation.flask",
    )
    call = trace.add("order-service", "GET /products/{product_id}", "client", parent=server, at=2, ms=4)
    trace.add(
        "product-service",
        "GET /products/{product_id}",
        "server",
        parent=call,
        at=3,
        ms=2,
        tags=http("GET", "/products/{product_id}", 200),
    )
    trace.add("order-service", "INSERT orders", "client", parent=server, at=7, ms=3, tags=database)
    settle = trace.add("order-service", "settle order", parent=server, at=11, ms=18, tags=tags)
    charge = trace.add("order-service", "POST /internal/charges", "client", parent=settle, at=12, ms=12)
    payment = trace.add(
        "payment-service",
        "POST /internal/charges",
        "server",
        parent=charge,
        at=13,
        ms=10,
        tags=http("POST", "/internal/charges", 201),
    )
    trace.add("payment-service", "SELECT payments", "client", parent=payment, at=14, ms=1, tags=database)
    trace.add("payment-service", "decide charge", parent=payment, at=16, ms=0.05, tags={"shop.order.id": order_id})
    trace.add("payment-service", "INSERT payments", "client", parent=payment, at=17, ms=4, tags=database)
    trace.add("order-service", "UPDATE orders", "client", parent=settle, at=25, ms=2, tags=database)
    return trace


def failed(**kwargs):
    """A request that failed: statuses, an exception as an event, and messages with odd characters."""
    trace = Trace(**kwargs)
    root = trace.add(
        "order-service",
        "GET /orders/{order_id}",
        "server",
        ms=250,
        tags=http("GET", "/orders/{order_id}", 500, **{"error.type": "500"}),
        status=Status(code=Status.STATUS_CODE_ERROR, message='it said "no" <&> ☃'),
        events=[
            event(
                "exception",
                trace.start + 3 * MS,
                **{"exception.type": "psycopg2.OperationalError", "exception.escaped": False, "attempt": 2},
            ),
            event("", trace.start + 4 * MS, note="an event without a name"),
            event("bare", trace.start + 5 * MS),
        ],
    )
    trace.add(
        "order-service", "SELECT orders", "client", parent=root, at=1, ms=200, status=Status(code=Status.STATUS_CODE_OK)
    )
    return trace


def attribute_types(**kwargs):
    """A span with every type of attribute there is, and with values at the edges of each."""
    trace = Trace(**kwargs)
    trace.add(
        "types-service",
        "every type",
        tags={
            "text": "plain",
            "empty": "",
            "unicode": "Grüße, 世界, 🎈, \u202eright to left",
            "quotes": "\"double\" 'single' \\ back / slash",
            "markup": "<script>&amp;</script>",
            "control": "line\nbreak\ttab\x01\x7f\u2028",
            "yes": True,
            "no": False,
            "zero": 0,
            "negative": -1,
            "largest": 2**63 - 1,
            "smallest": -(2**63),
            "float": 1.5,
            "float.whole": 3.0,
            "float.small": 1e-9,
            "float.large": 1e21,
            "float.third": 1 / 3,
            "bytes": b"\x00\x01\xfe\xff",
            "bytes.empty": b"",
            "list": ["a", 1, True, 1.5, None],
            "list.empty": [],
            "map": {"b": 2, "a": {"deep": ["<x>"]}},
            "map.empty": {},
            "nothing": None,
            "key with spaces": "k",
            "ключ": "unicode key",
            "": "empty key",
        },
    )
    return trace


def long_value(**kwargs):
    """A span with a long text."""
    trace = Trace(**kwargs)
    trace.add("long-service", "long", tags={"long": "x" * 20_000})
    return trace


def odd_names(**kwargs):
    """Services and operations whose names need escaping, and spans without a kind, a scope or a duration."""
    trace = Trace(**kwargs)
    root = trace.add("odd/service name?&#%+é", "GET /a/b?c=d&e=%2F #f", "producer", scope="")
    trace.add("odd/service name?&#%+é", "", "", parent=root, ms=0)
    trace.add("odd/service name?&#%+é", "операция ☃", "consumer", parent=root, at=0.0015, ms=0.0005)
    return trace


def linked(**kwargs):
    """A span whose parent is elsewhere, with links to other traces, a tracestate, and a service's tags on its own."""
    trace = Trace(**kwargs)
    trace.add(
        "order-service",
        "reconcile order",
        parent=trace.ids.randbytes(8),
        links=[
            Span.Link(
                trace_id=trace.ids.randbytes(16),
                span_id=trace.ids.randbytes(8),
                attributes=attributes({"why": "placed there"}),
            ),
            Span.Link(trace_id=bytes(8) + trace.ids.randbytes(8), span_id=trace.ids.randbytes(8)),
        ],
        trace_state="vendor=value,other=1",
        tags={"shop.order.id": 99},
    )
    return trace


def short_id(**kwargs):
    """A trace whose id begins with zeros, as one of 64 bits does."""
    trace = Trace(**kwargs)
    trace.id = bytes(8) + b"\x00\x0a" + trace.id[10:]
    trace.add("old-service", "GET /old", "server", ms=5)
    return trace


def skewed(**kwargs):
    """Spans whose times do not fit into their parents', and one that ends before it begins."""
    trace = Trace(**kwargs)
    root = trace.add("order-service", "backwards", "server", ms=-5)
    trace.add("order-service", "early", parent=root, at=-50, ms=500)
    parent = trace.add("order-service", "parent", parent=root, ms=10)
    trace.add("payment-service", "late", "server", parent=parent, at=1500, ms=4)
    trace.add("payment-service", "much later", "server", parent=parent, at=3_725_250.25, ms=4)
    trace.add("payment-service", "a little early", "server", parent=parent, at=-0.00025, ms=4)
    return trace


def nameless(**kwargs):
    """Spans of a service whose name is empty."""
    trace = Trace(**kwargs)
    trace.add("", "of nobody", "server")
    return trace


def log_request(service, records, environment="test"):
    """An export request of logs: `records` are `(time_ns, level, line, trace_id, span_id)`."""
    message = ExportLogsServiceRequest()
    batch = message.resource_logs.add()
    batch.resource.attributes.extend(
        attributes({"service.name": service, "service.namespace": "shop", "deployment.environment.name": environment})
    )
    group = batch.scope_logs.add()
    for at, level, line, trace_id, span_id in records:
        group.log_records.add(
            time_unix_nano=at,
            observed_time_unix_nano=at,
            severity_number=LEVELS[level],
            severity_text=level,
            body=value(line),
            trace_id=trace_id,
            span_id=span_id,
            attributes=attributes({"level": level}),
        )
    return message
