"""The gateway's metrics, under the names that the services use for theirs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from observability.gateway.line import Line, Vocabulary
from servicekit.metrics import SECONDS


class GatewayMetrics:
    """What the log says, counted.

    Args:
        vocabulary: The words that may become labels.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each is pure cost
        self._vocabulary = vocabulary
        self.registry = CollectorRegistry()
        # Of this process, not of nginx: the prefix says so, since Prometheus knows both as the job `nginx`.
        ProcessCollector(namespace="gateway_telemetry", registry=self.registry)
        self._duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of requests at the gateway, the client's own slowness included. Status 0: no answer was begun.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._upstream = Histogram(
            "gateway_upstream_duration_seconds",
            "How long the service took that was asked last: the gateway's duration less this is the client's share.",
            ["peer_service"],
            buckets=SECONDS,
            registry=self.registry,
        )
        for service in vocabulary.services:
            self._upstream.labels(service)
        self._lines = Counter(
            "gateway_log_lines_total",
            "Lines of the access log by outcome: request, malformed, or other (nginx about itself).",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("request", "malformed", "other"):
            self._lines.labels(outcome)
        self._delay = Gauge(
            "gateway_log_delay_seconds",
            "How old the newest line was when it was read.",
            registry=self.registry,
        )

    def request(self, line: Line) -> None:
        """Count a request."""
        exemplar = {"trace_id": line.trace_id, "span_id": line.span_id} if line.sampled else None
        words = self._vocabulary
        self._duration.labels(words.method(line), words.route(line), str(line.status)).observe(
            line.duration_s, exemplar
        )
        if (service := words.service(line)) is not None and line.upstream_duration_s is not None:
            self._upstream.labels(service).observe(line.upstream_duration_s, exemplar)
        self._lines.labels("request").inc()

    def malformed(self) -> None:
        """Count a line that should have been a request."""
        self._lines.labels("malformed").inc()

    def other(self) -> None:
        """Count a line that is none of the access log's."""
        self._lines.labels("other").inc()

    def delay(self, seconds: float) -> None:
        """Say how far the log is behind."""
        self._delay.set(max(seconds, 0))
