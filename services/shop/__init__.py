"""What the shop's services have in common, and servicekit does not know."""

from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry

NAMESPACE = "shop"
VERSION = "1.0.0"
"""`service.version` of every part: they are released together."""

RESOURCE = {"service.namespace": NAMESPACE, "service.version": VERSION, "deployment.environment.name": "local"}
"""Attributes of every part's resource; OTEL_RESOURCE_ATTRIBUTES has others where they differ."""

ATTRIBUTES = frozenset({
    "db.collection.name",
    "db.namespace",
    "db.operation.name",
    "db.query.summary",
    "db.query.text",
    "db.response.status_code",
    "db.system.name",
    "error.type",
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "peer.service",
    "server.address",
    "server.port",
    "shop.",
    "url.scheme",
    "url.template",
})  # fmt: skip
"""The attributes of spans that may leave a process: those of the telemetry contract."""


def telemetry(service: str, metrics: Metrics) -> Telemetry:
    """Set up tracing for one of the services."""
    return Telemetry(service, metrics.registry, resource=RESOURCE, attributes=ATTRIBUTES)
