"""What the shop's services have in common, and servicekit does not know."""

from servicekit.service import Application, Authority

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

DATABASE = "order-db"
"""What the database is called, which some of the services share."""

SHOP = Application(
    NAMESPACE,
    resource=RESOURCE,
    span_attributes=ATTRIBUTES,
    authority=Authority(
        "auth-service",
        keys_path="/auth/.well-known/jwks.json",
        tokens_path="/internal/token",
        login="get one from POST /auth/login",
    ),
)
