"""What the shop's five services have in common. It is not in servicekit, which does not depend on any application."""

from servicekit.service import Application, Authority

NAMESPACE = "shop"
VERSION = "1.0.0"
"""`service.version` of all parts, because they are released together."""

RESOURCE = {"service.namespace": NAMESPACE, "service.version": VERSION, "deployment.environment.name": "local"}
"""Resource attributes of all parts; OTEL_RESOURCE_ATTRIBUTES overrides them."""

ATTRIBUTES = frozenset({
    "db.collection.name",
    "db.namespace",
    "db.operation.name",
    "db.query.summary",
    "db.query.text",
    "db.response.status_code",
    "db.system.name",
    "error.type",
    "feature_flag.key",
    "feature_flag.provider.name",
    "feature_flag.result.reason",
    "feature_flag.result.variant",
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
"""The span attributes that may leave a process: those of the telemetry contract."""

DATABASE = "order-db"
"""The name of the database that some of the services share."""

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
