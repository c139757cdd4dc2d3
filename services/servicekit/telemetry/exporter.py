"""Exports spans by OTLP/HTTP: removes private data from them first, and counts what was sent and lost.

Telemetry must not hurt the service. If the queue is full, the oldest spans are dropped. If the backend does not accept
spans, they are lost. Both are counted, and logged at most once a minute.

`OTEL_TRACES_EXPORTER` may name entry points of the group `opentelemetry_traces_exporter` of installed packages. This
kit is a folder, not a package, so `compact` is not an entry point; this module knows the name, as it knows `otlp`. If
you make a package of it, the entry point `compact = "servicekit.telemetry.exporter:CompactSpanExporter"` in that group
makes the encoder available to other programs too. Those programs do not apply `Privacy`.
"""

import contextlib
import os
import re
import sys
import time
import weakref
from collections.abc import Collection, Sequence
from http import HTTPStatus
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, Status, StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge
from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter

from servicekit.telemetry import environment, logs
from servicekit.telemetry.encoder import encode
from servicekit.telemetry.stacktrace import cut_stacktrace
from servicekit.telemetry.tracing import SCOPE

PERSONAL = frozenset({
    "app.installation.id",
    "aws.dynamodb.item_collection_metrics",
    "aws.s3.copy_source",
    "aws.s3.delete",
    "aws.s3.key",
    "browser.document.url.full",
    "client.address",
    "client.port",
    "client.socket.address",
    "client.socket.port",
    "cloudevents.event_subject",
    "code.stacktrace",
    "db.connection_string",
    "db.statement.parameters",
    "device.id",
    "error.message",
    "exception.message",
    "faas.document.name",
    "feature_flag.context.id",
    "feature_flag.error.message",
    "feature_flag.evaluation.error.message",
    "file.directory",
    "file.name",
    "file.owner.id",
    "file.owner.name",
    "file.path",
    "file.symbolic_link.target_path",
    "gen_ai.completion",
    "gen_ai.conversation.id",
    "gen_ai.evaluation.explanation",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query.text",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "geo.locality.name",
    "geo.location.lat",
    "geo.location.lon",
    "geo.postal_code",
    "graphql.document",
    "http.client_ip",
    "http.host",
    "http.request.method_original",
    "http.server_name",
    "http.target",
    "http.url",
    "http.user_agent",
    "jsonrpc.request.id",
    "log.record.original",
    "mcp.resource.uri",
    "mcp.session.id",
    "messaging.conversation_id",
    "messaging.gcp_pubsub.message.ordering_key",
    "messaging.kafka.message.key",
    "messaging.message.conversation_id",
    "messaging.rocketmq.message.group",
    "messaging.rocketmq.message.keys",
    "net.host.ip",
    "net.host.name",
    "net.peer.ip",
    "net.peer.name",
    "net.peer.port",
    "net.sock.peer.addr",
    "net.sock.peer.name",
    "net.sock.peer.port",
    "network.peer.address",
    "network.peer.port",
    "otel.status_description",
    "peer.address",
    "process.command",
    "process.command_args",
    "process.command_line",
    "rpc.jsonrpc.error_message",
    "rpc.jsonrpc.request_id",
    "rpc.method_original",
    "session.id",
    "session.previous_id",
    "source.address",
    "source.domain",
    "source.port",
    "url.domain",
    "url.fragment",
    "url.full",
    "url.original",
    "url.path",
    "url.query",
    "url.registered_domain",
    "url.subdomain",
    "user.email",
    "user.full_name",
    "user.hash",
    "user.id",
    "user.name",
    "user.roles",
    "user_agent.original",
})  # fmt: skip
"""Attributes of the semantic conventions, old and new, that contain text from the client or identify it."""

PERSONAL_PREFIXES = (
    "db.elasticsearch.path_parts.",
    "db.operation.parameter.",
    "db.query.parameter.",
    "enduser.",
    "gen_ai.completion.",
    "gen_ai.prompt.",
    "http.request.header.",
    "http.response.header.",
    "process.environment_variable.",
    "rpc.connect_rpc.request.metadata.",
    "rpc.connect_rpc.response.metadata.",
    "rpc.grpc.request.metadata.",
    "rpc.grpc.response.metadata.",
    "rpc.request.metadata.",
    "rpc.response.metadata.",
    "tls.client.",
)
"""Prefixes of further personal attributes."""

_STATEMENTS = frozenset({"db.query.text", "db.statement"})
"""The kit's own spans have templates here; other instrumentations record statements that contain values."""

# Anybody who knows the value of such a header can act as the client. Some instrumentations write `_`, others `-`.
_SECRET = re.compile(
    r"(http|rpc)\..*(header|metadata)\..*(auth|cookie|credential|password|secret|session|token|api[_-]?key)",
    re.IGNORECASE,
)
_STACKTRACE = "exception.stacktrace"
_OF_EXCEPTIONS = frozenset({"exception.type", _STACKTRACE, "exception.escaped"})

STOP_SECONDS = 1.5
"""The time limit for sending the last spans when the process ends."""

_REMIND_SECONDS = 60.0
_STATUSES = {code: Status(code) for code in StatusCode}
_FAILURES = ("timeout", "unavailable", "rejected", "shutdown", "_OTHER")
_TIMEOUT, _UNAVAILABLE, _REJECTED, _SHUTDOWN, _OTHER = _FAILURES


class Privacy:
    """Removes from spans what must not leave the process.

    Instrumentation libraries record a lot: path and query, the user agent, the client's address, messages of
    exceptions. A list of allowed attributes also keeps out what their future versions record. The client's tracestate
    is sent on in headers, as W3C Trace Context requires, but it is not kept in spans.

    Args:
        attributes: The names of the attributes that may leave. A name that ends with `.` allows all attributes with
            this prefix, except those that are known to be personal; these have to be named in full. Without a list,
            all attributes except personal ones may leave. Headers that contain a key or a token never leave.
            Statements that other instrumentations recorded count as personal, too.
    """

    def __init__(self, attributes: Collection[str] | None = None) -> None:
        self._listed = None if attributes is None else frozenset(attributes)
        listed = self._listed or ()
        self._names = frozenset(name for name in listed if not name.endswith(".") and not _SECRET.match(name))
        self._prefixes = tuple(name for name in listed if name.endswith("."))
        self._cut_of_others = _STATEMENTS - self._names

    def __eq__(self, other: object) -> bool:
        """Whether the other one removes the same attributes."""
        return isinstance(other, Privacy) and other._listed == self._listed

    def __hash__(self) -> int:
        """See `__eq__`."""
        return hash(self._listed)

    def leaves(self, attribute: str) -> bool:
        """Whether an attribute of this name may leave the process."""
        if attribute in self._names:
            return True
        if self._listed is not None and not attribute.startswith(self._prefixes):
            return False
        return attribute not in PERSONAL and not attribute.startswith(PERSONAL_PREFIXES)

    def cut(self, span: ReadableSpan) -> ReadableSpan:
        """Return a copy of a span with only what may leave the process."""
        scope = span.instrumentation_scope
        attributes = self._kept(span.attributes)
        if scope is None or scope.name != SCOPE:
            for name in self._cut_of_others:
                attributes.pop(name, None)
        return ReadableSpan(
            _text(span.name),
            _stateless(span.context),
            _stateless(span.parent),
            span.resource,
            _counted(attributes, span.dropped_attributes),
            events=_listed([self._event(event) for event in span.events], span.dropped_events),
            links=_listed([self._link(link) for link in span.links], span.dropped_links),
            kind=span.kind,
            status=_STATUSES[span.status.status_code],  # without the description, which quotes the exception
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _kept(self, attributes: Any) -> dict[str, Any]:
        if not attributes:
            return {}
        plain = attributes.copy()  # a copy, because each lookup in the SDK's own mapping takes a lock
        kept = {name: value for name, value in plain.items() if self.leaves(name)}
        if _STACKTRACE in kept:
            kept[_STACKTRACE] = cut_stacktrace(str(kept[_STACKTRACE]))
        return kept

    def _event(self, event: Event) -> Event:
        attributes: dict[str, Any] = {
            name: value
            for name, value in (event.attributes or {}).items()
            if name in _OF_EXCEPTIONS or self.leaves(name)
        }
        if _STACKTRACE in attributes:
            attributes[_STACKTRACE] = cut_stacktrace(str(attributes[_STACKTRACE]))
        return Event(_text(event.name), _counted(attributes, event.dropped_attributes), event.timestamp)

    def _link(self, link: Link) -> Link:
        attributes = _counted(self._kept(link.attributes), link.dropped_attributes)
        return Link(_stateless(link.context) or link.context, attributes)


class _Cutting:
    """Removes private data from each ended span before the processors of a provider get it.

    Args:
        processors: The provider's own object that calls all its processors, also those that are added later.
    """

    def __init__(self, processors: SpanProcessor) -> None:
        self._on_end = processors.on_end
        self._privacies: list[Privacy] = []
        processors.on_end = self.on_end  # type: ignore[method-assign]

    def add(self, privacy: Privacy) -> None:
        """Remove what this one removes, too."""
        if privacy not in self._privacies:
            self._privacies.append(privacy)

    def on_end(self, span: ReadableSpan) -> None:
        """See OpenTelemetry's SDK."""
        for privacy in self._privacies:
            span = privacy.cut(span)
        self._on_end(span)


def cut_spans_of(provider: TracerProvider, privacy: Privacy) -> bool:
    """Remove private data from all spans of a provider that other code made, whatever its processors and exporters are.

    The SDK has no public way to do this, because a processor cannot change what the next one gets. So this function
    uses a private attribute, to which all tracers of the provider, also existing ones, give their ended spans. If
    several callers ask for it, everything that one of them wants removed is removed.

    Returns:
        False if the SDK does not have this attribute.
    """
    processors = getattr(provider, "_active_span_processor", None)
    if not isinstance(processors, SpanProcessor):
        return False
    there = getattr(processors.on_end, "__self__", None)
    (there if isinstance(there, _Cutting) else _Cutting(processors)).add(privacy)
    return True


def _text(name: object) -> str:
    """Return a name that can be encoded. One that cannot, such as half a surrogate pair, would lose the whole batch."""
    text = name if isinstance(name, str) else str(name)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _counted(attributes: dict[str, Any], dropped: int) -> Any:
    """Return attributes that also hold the number of dropped ones, as the SDK's own do."""
    if not dropped:
        return attributes
    counted = BoundedAttributes(attributes=attributes)
    counted.dropped = dropped
    return counted


def _listed(items: list[Any], dropped: int) -> Any:
    """Return events or links that also hold the number of dropped ones, as the SDK's own do."""
    if not dropped:
        return items
    listed = BoundedList.from_seq(None, items)
    listed.dropped = dropped
    return listed


def _stateless(context: SpanContext | None) -> SpanContext | None:
    if context is None or not context.trace_state:
        return context
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class CompactSpanExporter(OTLPSpanExporter):
    """OpenTelemetry's OTLP/HTTP exporter with another encoder; see `encoder` for why.

    It takes the same arguments and reads the same environment variables as the official exporter.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See OpenTelemetry's SDK."""
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(encode(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class _Watch(HTTPAdapter):
    """Finds out why an export failed; the exporters themselves report only that it failed.

    Attributes:
        failure: Why the last try failed; empty if it succeeded.
        refused: How many spans of an accepted batch the backend rejected.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure, self.refused = _OTHER, 0
        self._certificate = environment.first(os.environ, "CERTIFICATE")
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        # After a fork, open connections belong to the parent, and another thread may have held the pool's lock.
        self._of_parent = self.poolmanager, self.proxy_manager
        self.proxy_manager = {}
        self.init_poolmanager(DEFAULT_POOLSIZE, DEFAULT_POOLSIZE)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        if self._certificate is not None:
            kwargs["verify"] = self._certificate  # else REQUESTS_CA_BUNDLE overrides the exporter's setting
        self.failure, self.refused = _OTHER, 0
        try:
            response = super().send(*args, **kwargs)
            content = response.content
        except requests.Timeout:
            self.failure = _TIMEOUT
            raise
        except requests.RequestException:
            self.failure = _UNAVAILABLE
            raise
        self.failure = _failure(response.status_code)
        if not self.failure:
            # The body is not valid OTLP, but the status says that the spans were accepted.
            with contextlib.suppress(DecodeError):
                self.refused = ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans
        return response


def _failure(status: int) -> str:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return ""
    # A redirect is not followed: the headers may contain a key, which only this address may get.
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 429}:
        return _UNAVAILABLE
    return _REJECTED


class Outlet(SpanExporter):
    """Gives spans to an exporter without private data; counts and logs the lost ones.

    Args:
        exporter: The exporter.
        privacy: Removes private data.
        counts: The metrics that count spans.
        watch: Knows why an export failed; None if nothing does.
    """

    def __init__(self, exporter: SpanExporter, privacy: Privacy, counts: "Counts", watch: _Watch | None = None) -> None:
        self._exporter = exporter
        self._privacy = privacy
        self._counts = counts
        self._watch = watch
        self.begin()

    def begin(self) -> None:
        """Reset the state. In the child of a fork, earlier exports are the parent's to count and log."""
        self._lost = 0
        self._told_at = -_REMIND_SECONDS
        self._told = False
        self._in_hand = 0
        self._given_up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See OpenTelemetry's SDK."""
        self._in_hand = len(spans)
        result = SpanExportResult.FAILURE
        if self._watch is not None:
            self._watch.failure = _OTHER  # stays if the exporter fails before it sends a request
        try:
            result = self._exporter.export([self._privacy.cut(span) for span in spans])
        finally:
            self._in_hand = 0
            if not self._given_up:
                self._count(len(spans), failed=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """See OpenTelemetry's SDK."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See OpenTelemetry's SDK."""
        return self._exporter.force_flush(timeout_millis)

    def give_up(self, waiting: int) -> None:
        """Count and log the spans that will not be sent: those in the queue, and those of an unfinished export."""
        if self._given_up:
            return
        self._given_up = True
        if lost := waiting + self._in_hand:
            self._counts.exported(lost, _SHUTDOWN)
            self._told_at = -_REMIND_SECONDS
            self._tell(_SHUTDOWN, lost)

    def _count(self, count: int, *, failed: bool) -> None:
        failure, refused = (_OTHER if failed else ""), 0
        if self._watch is not None:
            # The official exporter counts a redirect as a success.
            failure, refused = self._watch.failure or failure, self._watch.refused
        lost = count if failure else min(refused, count)
        if lost:
            self._tell(failure or _REJECTED, lost)
            self._counts.exported(lost, failure or _REJECTED)
        if lost < count:
            self._counts.exported(count - lost, "")
            if not lost:
                self._tell("", 0)

    def _tell(self, failure: str, count: int) -> None:
        # At most one line a minute, even if the backend fails and recovers often. No endpoint: it may have a password.
        if failure:
            self._lost += count
            if time.monotonic() - self._told_at >= _REMIND_SECONDS:
                self._told_at, self._told = time.monotonic(), True
                logs.get_logger().warning("telemetry.export_failed", error_type=failure, spans_lost=self._lost)
        elif self._told:
            logs.get_logger().info("telemetry.export_resumed", spans_lost=self._lost)
            self._lost, self._told = 0, False


class Counts:
    """The SDK metrics of OpenTelemetry's semantic conventions, in Prometheus' form.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._processed = Counter(
            "otel_sdk_processor_span_processed_total",
            "Spans handed to the exporter, or dropped: then error_type says why.",
            ["error_type"],
            registry=registry,
        )
        self._watched: list[Batches] = []
        size = Gauge("otel_sdk_processor_span_queue_size", "Spans that wait to be exported.", registry=registry)
        size.set_function(lambda: sum(batches.waiting for batches in self._watched))
        capacity = Gauge(
            "otel_sdk_processor_span_queue_capacity", "Spans that may wait to be exported.", registry=registry
        )
        capacity.set_function(lambda: sum(batches.capacity for batches in self._watched))
        self._exported = Counter(
            "otel_sdk_exporter_span_exported_total",
            "Spans exported, or lost: then error_type says why.",
            ["error_type"],
            registry=registry,
        )
        for error_type in ("", "queue_full"):
            self._processed.labels(error_type)
        for error_type in ("", *_FAILURES):
            self._exported.labels(error_type)
        self._dropped = self._processed.labels("queue_full")

    def watch(self, batches: "Batches") -> None:
        """Expose how full its queue is; with several exporters, the sum of their queues."""
        self._watched.append(batches)

    def dropped(self) -> None:
        """Count a span that was dropped because the queue was full."""
        self._dropped.inc()

    def exported(self, count: int, error_type: str) -> None:
        """Count spans that were given to the exporter; `error_type` is empty if they were sent."""
        self._processed.labels("").inc(count)
        self._exported.labels(error_type).inc(count)


class Batches(BatchSpanProcessor):
    """OpenTelemetry's batch processor, which also counts dropped spans and stops within a time limit.

    The SDK's own counts need a second metrics library in the process, and its shutdown waits half a minute for a
    backend that hangs.

    Args:
        outlet: Exports the spans.
        counts: The metrics that count spans.
    """

    def __init__(self, outlet: Outlet, counts: Counts) -> None:
        super().__init__(outlet, meter_provider=NoOpMeterProvider())
        self._began_ns = 0
        self._backdated: set[int] = set()
        begin = weakref.WeakMethod(self._begin_in_child)
        os.register_at_fork(after_in_child=lambda: (call := begin()) and call())
        self._outlet = outlet
        self._counts = counts
        self._queue = self._batch_processor._queue  # noqa: SLF001  # private; the tests notice if the SDK changes it
        self.capacity: int = self._queue.maxlen or 0
        counts.watch(self)

    def _begin_in_child(self) -> None:
        # After a fork, the SDK's processor empties its queue and restarts its thread. The rest has to be reset here.
        self._began_ns = time.time_ns()
        self._backdated = set()
        self._outlet.begin()

    @property
    def waiting(self) -> int:
        """How many spans are in the queue. A caller that can wait may use this to avoid that spans are dropped."""
        return len(self._queue)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See OpenTelemetry's SDK."""
        del parent_context
        if (span.start_time or 0) < self._began_ns and span.context is not None and span.context.trace_flags.sampled:
            self._backdated.add(span.context.span_id)  # began in this process, though its start time is earlier

    def on_end(self, span: ReadableSpan) -> None:
        """See OpenTelemetry's SDK."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if (span.start_time or 0) < self._began_ns:
            if span.context.span_id not in self._backdated:
                return  # began before a fork: the parent has it too, and exports it
            self._backdated.discard(span.context.span_id)
        if len(self._queue) >= self.capacity:
            self._counts.dropped()
        super().on_end(span)

    def shutdown(self) -> None:
        """Send the waiting spans within the time limit, count and log the rest, and stop."""
        self._batch_processor.shutdown(int(STOP_SECONDS * 1000))
        self._outlet.give_up(self.waiting)


def processors(registry: CollectorRegistry, privacy: Privacy) -> list[Batches]:
    """Create the span processors that the environment asks for. Call `environment.prepare` first.

    Args:
        registry: Where the metrics about spans are registered.
        privacy: Removes private data from spans.

    Returns:
        One processor for each exporter; none if nothing is to be exported.
    """
    default = "none" if environment.first(os.environ, "ENDPOINT") is None else "compact"
    names = [name for name in os.environ.get("OTEL_TRACES_EXPORTER", default).split(",") if name != "none"]
    if not names or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return []
    counts = Counts(registry)
    made = []
    for name in names:
        try:
            exporter, watch = _exporter(name)
        except Exception as error:  # noqa: BLE001  # an installed exporter may raise anything; start without it
            reason = f"an exporter could not be made: {type(error).__qualname__}"
            logs.get_logger().warning("telemetry.setting_ignored", variable="OTEL_TRACES_EXPORTER", reason=reason)
        else:
            made.append(Batches(Outlet(exporter, privacy, counts, watch), counts))
    return made


def _exporter(name: str) -> tuple[SpanExporter, _Watch | None]:
    if name == "console":
        return ConsoleSpanExporter(out=sys.__stdout__ or sys.stdout, formatter=_line), None
    if name not in {"otlp", "compact"}:
        [found, *_] = entry_points(group="opentelemetry_traces_exporter", name=name)
        made: SpanExporter = found.load()()
        return made, None
    watch, session = _Watch(), requests.Session()
    session.mount("http://", watch)
    session.mount("https://", watch)
    kind = OTLPSpanExporter if name == "otlp" else CompactSpanExporter
    return kind(endpoint=_endpoint(), session=session, timeout=_seconds(), meter_provider=NoOpMeterProvider()), watch


def _endpoint() -> str:
    if (whole := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) is not None:
        return whole
    root = urlsplit(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"))
    return root._replace(path=f"{root.path.rstrip('/')}/v1/traces").geturl()  # before a query, if there is one


def _seconds() -> float:
    """The time limit of an export. The specification has milliseconds; Python's exporter reads them as seconds."""
    limits = environment.first(os.environ, "TIMEOUT"), os.environ.get("OTEL_BSP_EXPORT_TIMEOUT")
    return min(int(limit or default) for limit, default in zip(limits, (10_000, 30_000), strict=True)) / 1000


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
