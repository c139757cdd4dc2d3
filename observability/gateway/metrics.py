"""The gateway's metrics, under the names that the services use for theirs."""

from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from observability.gateway.line import UNMATCHED, Line, Vocabulary
from servicekit.telemetry.histogram import Histogram
from servicekit.telemetry.metrics import SECONDS

_PROMISED = {"/orders/": ("201", "202", "402"), "/auth/login": ("200", "401")}
"""What the SLOs count, with its good answers: there from the start, so that the first failure shows."""
_LABELS = ("http_request_method", "http_route", "http_response_status_code")
_FAILED = ("500", "502", "503", "504")
_BEFORE_A_LOCATION = (400, 405, 413, 414, 431)
"""What nginx may refuse before it looks for a location; a route it may know even so."""


class GatewayMetrics:
    """What the log says, counted.

    Args:
        vocabulary: The words that may become labels.
        module: Whether nginx's own module makes the spans, which makes none of what is refused before a location.
    """

    def __init__(self, vocabulary: Vocabulary, *, module: bool = False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each is pure cost
        self._vocabulary = vocabulary
        self._module = module
        self.registry = CollectorRegistry()
        # Of this process, not of nginx: the prefix says so, since Prometheus knows both as the job `nginx`.
        ProcessCollector(namespace="gateway_telemetry", registry=self.registry)
        self._duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of requests at the gateway, the client's own slowness included. Status 0: no answer was begun.",
            _LABELS,
            SECONDS,
            self.registry,
        )
        self._upstream = Histogram(
            "gateway_upstream_duration_seconds",
            "How long the service took that was asked last: the gateway's duration less this is the client's share.",
            ["peer_service"],
            SECONDS,
            self.registry,
        )
        for service in vocabulary.services:
            self._upstream.begin((service,))
        # No client can make it longer by being slow, so the SLO of latency is about this one.
        self._served = Histogram(
            "gateway_service_duration_seconds",
            "How long the service took for the requests of a route, all tries together, without the client's slowness.",
            _LABELS,
            SECONDS,
            self.registry,
        )
        for route, well in _PROMISED.items():
            for status in (*well, *_FAILED):
                self._duration.begin(("POST", route, status))
                self._served.begin(("POST", route, status))
        lines = Counter(
            "gateway_log_lines_total",
            "Lines of the access log by outcome: request, malformed, or other (nginx about itself).",
            ["outcome"],
            registry=self.registry,
        )
        self._requests, self._malformed, self._other = map(lines.labels, ("request", "malformed", "other"))
        self._batches_lost = Counter(
            "gateway_span_batches_lost_total",
            "Batches of up to 64 spans that nginx's own module could not send, as its error log says.",
            registry=self.registry,
        )
        self._up: Gauge | None = None
        self._delay = Gauge(
            "gateway_log_delay_seconds",
            "How old the newest line was when it was read.",
            registry=self.registry,
        )

    def request(self, line: Line, seen_in: SpanContext | None) -> None:
        """Count a request, and name the span that shows it. With `module` what has no route may have none."""
        words = self._vocabulary
        labels = (words.method(line), words.route(line), str(line.status))
        if self._module and line.refused() and (words.route(line) == UNMATCHED or line.status in _BEFORE_A_LOCATION):
            seen_in = None
        self._duration.observe(labels, line.duration_s, seen_in)
        if (service := words.service(line)) is not None and line.upstream_duration_s is not None:
            self._upstream.observe((service,), line.upstream_duration_s, seen_in)
            self._served.observe(labels, line.served_s() or 0.0)
        self._requests.inc()

    def malformed(self) -> None:
        """Count a line that should have been a request."""
        self._malformed.inc()

    def other(self) -> None:
        """Count a line that is none of the access log's."""
        self._other.inc()

    def batch_lost(self) -> None:
        """Count a batch of spans that nginx's module says it lost."""
        self._batches_lost.inc()

    def gateway_up(self, answers: bool) -> None:  # noqa: FBT001  # it is the metric's value
        """Say whether the gateway answers. There is no such metric as long as nobody has asked."""
        if self._up is None:
            self._up = Gauge(
                "gateway_up", "Whether the gateway answers its /healthz, asked from outside.", registry=self.registry
            )
        self._up.set(answers)

    def delay(self, seconds: float) -> None:
        """Say how far the log is behind."""
        self._delay.set(max(seconds, 0))
