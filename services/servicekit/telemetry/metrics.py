"""Prometheus metrics: one registry per app, RED metrics by route, exemplars that link to the trace.

Names and labels are those of OpenTelemetry's stable HTTP and database semantic conventions, in Prometheus' form.
Label values are bounded: route templates, known methods, status codes, peers; never an id or a client's text.
"""

from collections.abc import Sequence
from functools import cache

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds, unless an app gives its own.

Most requests and statements take 1 to 100 ms, so most bounds are in this range. They are a factor of 2 to 2.5 apart,
which limits how exact a quantile is. All histograms have the same bounds, so a client's histogram can be compared with
its server's. They cost 16 series for each combination of labels.
"""

OTHER_METHOD = "_OTHER"
"""Replaces unknown methods that a client made up, as the semantic conventions say."""

CUT_REASONS = ("silent", "unread", "crowded")
"""Why a service closes a connection: no request came, the client did not read an answer, or there were too many.

If only a part of a request came, it is answered with 408 and counted among the requests instead.
"""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class Metrics:
    """The registry of one app, and the metrics that every service has.

    Args:
        enabled: Whether anything is measured and exposed.
        buckets: The upper bounds of the latency buckets, in seconds, ascending.

    Attributes:
        registry: Where a service registers its own business metrics.
        enabled: Whether anything is measured.
        buckets: As given.
    """

    def __init__(self, *, enabled: bool = True, buckets: Sequence[float] = SECONDS) -> None:
        self.enabled = enabled
        self.buckets = buckets
        disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series cost memory and nobody uses them
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        server_duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of requests served.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=buckets,
            registry=self.registry,
        )
        self._server_duration = cache(server_duration.labels)  # cached, because `labels` takes a lock and formats texts
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
        client_duration = Histogram(
            "http_client_request_duration_seconds",
            "Duration of calls to other services, retries included; the status is `error` if none came.",
            ["peer_service", "http_request_method", "http_route", "http_response_status_code"],
            buckets=buckets,
            registry=self.registry,
        )
        self._client_duration = cache(client_duration.labels)
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
        """Count a request as no longer active."""
        if self.enabled:
            self._active.dec()

    def request_rejected(self) -> None:
        """Count a request that was rejected because too many were waiting, or because it waited for too long."""
        self._rejected.inc()

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was closed for one of CUT_REASONS."""
        self._cut.labels(reason).inc()

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record a served request; method from `known_method`, route a template such as `/parcels/{parcel_id}`."""
        if self.enabled:
            self._server_duration(method, route, status).observe(seconds, current_exemplar())

    def call_ended(self, peer: str, method: str, route: str, status: int | None, seconds: float) -> None:
        """Record a call to another service; `status` is None if no answer came."""
        if self.enabled:
            code = "error" if status is None else status
            self._client_duration(peer, method, route, code).observe(seconds, current_exemplar())

    def peer_known(self, peer: str) -> None:
        """Start the peer's retries at 0. If the counter first appeared at 1, `rate` would miss the first retry."""
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
        query_duration = Histogram(
            "db_client_operation_duration_seconds",
            "Duration of database statements, the wait for a connection not included.",
            ["db_query_summary", "outcome"],
            buckets=metrics.buckets,
            registry=registry,
        )
        self._query_duration = cache(query_duration.labels)
        self._pool_wait = Histogram(
            "db_client_connection_wait_time_seconds",
            "Wait for a connection of the pool.",
            buckets=metrics.buckets,
            registry=registry,
        )
        self._pool_timeouts = Counter(
            "db_client_connection_timeouts_total",
            "Requests that got no connection within the wait limit.",
            registry=registry,
        )

    def query_ended(self, summary: str, *, ok: bool, seconds: float) -> None:
        """Record a database statement; `summary` is such as `INSERT parcels`."""
        if self._enabled:
            self._query_duration(summary, "ok" if ok else "error").observe(seconds, current_exemplar())

    def connection_taken(self, seconds: float) -> None:
        """Record how many seconds a caller waited for a connection."""
        if self._enabled:
            self._pool_wait.observe(seconds, current_exemplar())

    def connection_missed(self) -> None:
        """Count a wait for a connection that ended without one."""
        self._pool_timeouts.inc()


def known_method(method: str) -> str:
    """Return the method, or `OTHER_METHOD`."""
    return method if method in _METHODS else OTHER_METHOD


def exemplar(span: trace.SpanContext | None) -> dict[str, str] | None:
    """Return the labels of an exemplar that links to this span; None if there is no span."""
    if span is None:
        return None
    return {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}


def current_exemplar() -> dict[str, str] | None:
    """Return the labels of an exemplar for the current span; None if it is not recorded and sampled."""
    span = trace.get_current_span()
    context = span.get_span_context()
    return exemplar(context) if span.is_recording() and context.trace_flags.sampled else None
