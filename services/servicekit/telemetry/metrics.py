"""Prometheus metrics: one registry an app, RED metrics by route, exemplars that open the trace.

Names and labels are those of OpenTelemetry's stable HTTP and database semantic conventions, in Prometheus' form.
Label values are bounded: route templates, known methods, status codes, peers; never an id or a client's text.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from servicekit.telemetry import tracing
from servicekit.telemetry.histogram import Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets for latencies, chosen for what is measured here.

The shop's statements and requests take 1 to 100 ms, so most bounds are there, a factor of 2 to 2.5 apart, which is
how exact a quantile can be. Above, where the shop stops waiting there is a bound: 0.5 s to connect, 1 s for a product
or for a connection of the pool; what takes longest ends within 10 s. They are the same in all histograms, so that a
client's can be laid over its server's. What they cost: 16 series for each combination of labels.
"""

OTHER_METHOD = "_OTHER"
"""Stands for every method that a client made up (as the semantic conventions say)."""

CUT_REASONS = ("silent", "unread", "crowded")
"""Why a service closes a connection: no request came, an answer was not taken, another connection needed the room.

A request of which only a part came has a status, 408, and is among the requests.
"""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class Metrics:
    """The registry of one app, and the metrics that every service has.

    Args:
        enabled: Whether anything is measured and exposed.

    Attributes:
        registry: Where a service registers its own business metrics.
        enabled: Whether anything is measured.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each is pure cost
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._server_duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of requests served.",
            ["http_request_method", "http_route", "http_response_status_code"],
            SECONDS,
            self.registry,
        )
        self._active = Gauge("http_server_active_requests", "Requests being served now.", registry=self.registry)
        self._rejected = Counter(
            "http_server_requests_rejected_total",
            "Requests refused because too many were waiting, or waited too long, for their turn.",
            registry=self.registry,
        )
        self._cut = Counter(
            "http_server_connections_cut_total",
            "Connections closed by the service because of their client.",
            ["reason"],
            registry=self.registry,
        )
        for reason in CUT_REASONS:
            self._cut.labels(reason)
        self._client_duration = Histogram(
            "http_client_request_duration_seconds",
            "Duration of calls to other services, retries included; the status is `error` if none came.",
            ["peer_service", "http_request_method", "http_route", "http_response_status_code"],
            SECONDS,
            self.registry,
        )
        self._client_retries = Counter(
            "http_client_retries_total",
            "Calls to other services that were tried again.",
            ["peer_service"],
            registry=self.registry,
        )

    def request_began(self) -> None:
        """Count a request as active."""
        if self.enabled:
            self._active.inc()

    def request_left(self) -> None:
        """Count a request as active no more."""
        if self.enabled:
            self._active.dec()

    def request_rejected(self) -> None:
        """Count a request that did not get its turn."""
        self._rejected.inc()

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was closed for one of CUT_REASONS."""
        self._cut.labels(reason).inc()

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record a served request; method from `known_method`, route a template such as `/orders/{order_id}`."""
        if self.enabled:
            self._server_duration.observe((method, route, str(status)), seconds, tracing.recorded())

    def call_ended(self, peer: str, method: str, route: str, status: int | None, seconds: float) -> None:
        """Record a call to another service; `status` is None where no answer came."""
        if not self.enabled:
            return
        code = "error" if status is None else str(status)
        self._client_duration.observe((peer, method, route, code), seconds, tracing.recorded())

    def peer_known(self, peer: str) -> None:
        """Start the peer's retries at 0: the rate of a counter that appears at 1 misses the first."""
        self._client_retries.labels(peer)

    def call_retried(self, peer: str) -> None:
        """Count a second try of a call."""
        self._client_retries.labels(peer).inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class DatabaseMetrics:
    """The metrics of a service that has a database.

    Args:
        metrics: The service's.
    """

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._enabled = metrics.enabled
        self._query_duration = Histogram(
            "db_client_operation_duration_seconds",
            "Duration of database statements, the wait for a connection not included.",
            ["db_query_summary", "outcome"],
            SECONDS,
            registry,
        )
        self._pool_wait = Histogram(
            "db_client_connection_wait_time_seconds",
            "Wait for a connection of the pool.",
            [],
            SECONDS,
            registry,
        )
        self._pool_timeouts = Counter(
            "db_client_connection_timeouts_total",
            "Requests that got no connection within the wait limit.",
            registry=registry,
        )

    def query_ended(self, summary: str, *, ok: bool, seconds: float) -> None:
        """Record a database statement; `summary` is such as `INSERT orders`."""
        if self._enabled:
            self._query_duration.observe((summary, "ok" if ok else "error"), seconds, tracing.recorded())

    def connection_taken(self, seconds: float) -> None:
        """Record how long a connection was waited for."""
        if self._enabled:
            self._pool_wait.observe((), seconds, tracing.recorded())

    def connection_missed(self) -> None:
        """Count a wait for a connection that ended without one."""
        self._pool_timeouts.inc()


def known_method(method: str) -> str:
    """Return the method, or `OTHER_METHOD`."""
    return method if method in _METHODS else OTHER_METHOD
