"""What leaves the process: spans, cut of what is nobody else's business, by OTLP/HTTP, and counted.

Telemetry must not hurt the service. What the queue cannot take is dropped, oldest first; what the backend does not take
is lost; both are counted, and told once a minute.

`OTEL_TRACES_EXPORTER` takes entry points of the group `opentelemetry_traces_exporter`, of packages that are installed.
This kit is a folder, not a package, so `compact` is no entry point: the name is known here, as `otlp` is. If you make a
package of it, `compact = "servicekit.telemetry.exporter:CompactSpanExporter"` in that group gives the encoder to other
programs too; what `Privacy` cuts, they send.
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
"""Attributes of the semantic conventions, old and new, that hold a client's text, or say who it is."""

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
"""How further ones begin."""

_STATEMENTS = frozenset({"db.query.text", "db.statement"})
"""Templates in the kit's own spans; other instrumentations record statements with the values in them."""

# Who has such a header's value can act as the client. With `_` or `-`, as the instrumentations differ.
_SECRET = re.compile(
    r"(http|rpc)\..*(header|metadata)\..*(auth|cookie|credential|password|secret|session|token|api[_-]?key)",
    re.IGNORECASE,
)
_STACKTRACE = "exception.stacktrace"
_OF_EXCEPTIONS = frozenset({"exception.type", _STACKTRACE, "exception.escaped"})

STOP_SECONDS = 1.5
"""How long the last spans may take to be sent when the process ends."""

_REMIND_SECONDS = 60.0
_STATUSES = {code: Status(code) for code in StatusCode}
_FAILURES = ("timeout", "unavailable", "rejected", "shutdown", "_OTHER")
_TIMEOUT, _UNAVAILABLE, _REJECTED, _SHUTDOWN, _OTHER = _FAILURES


class Privacy:
    """Cuts spans of what must not leave the process.

    Instrumentation libraries record more than one would think: path and query, the user agent, the client's address,
    messages of exceptions. A list of what may leave keeps out what they will think of next. The client's tracestate is
    handed on in headers, as W3C wants it, and not kept.

    Args:
        attributes: The names of the attributes that may leave; a `.` at the end stands for all that begin so, but for
            those that are known to be personal: each of these has to be named. Without a list, all may but the
            personal ones. Headers that hold a key or a token never do. Statements of other instrumentations than the
            kit's own are personal, too.
    """

    def __init__(self, attributes: Collection[str] | None = None) -> None:
        self._listed = None if attributes is None else frozenset(attributes)
        listed = self._listed or ()
        self._names = frozenset(name for name in listed if not name.endswith(".") and not _SECRET.match(name))
        self._prefixes = tuple(name for name in listed if name.endswith("."))
        self._cut_of_others = _STATEMENTS - self._names

    def __eq__(self, other: object) -> bool:
        """Whether the other cuts the same."""
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
        """Return a span with what may leave."""
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
            status=_STATUSES[span.status.status_code],  # without its description, which quotes an exception
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _kept(self, attributes: Any) -> dict[str, Any]:
        if not attributes:
            return {}
        plain = attributes.copy()  # the SDK's own mapping takes a lock for each look at it
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
    """Stands before the processors of a provider, and gives them each span cut.

    Args:
        processors: What the provider gives its ended spans: all its processors, those that it has and those to come.
    """

    def __init__(self, processors: SpanProcessor) -> None:
        self._on_end = processors.on_end
        self._privacies: list[Privacy] = []
        processors.on_end = self.on_end  # type: ignore[method-assign]

    def add(self, privacy: Privacy) -> None:
        """Cut by this, too."""
        if privacy not in self._privacies:
            self._privacies.append(privacy)

    def on_end(self, span: ReadableSpan) -> None:
        """See OpenTelemetry's SDK."""
        for privacy in self._privacies:
            span = privacy.cut(span)
        self._on_end(span)


def cut_spans_of(provider: TracerProvider, privacy: Privacy) -> bool:
    """Cut all spans of a provider that somebody else has made, whatever its processors and exporters are.

    The SDK has no public way: no processor can change what the next one gets. So this takes one attribute that is not
    public: all tracers of a provider, also those made before, hand their spans to it. What several want cut is all cut.

    Returns:
        Whether it can be done; not with an SDK that has no such attribute.
    """
    processors = getattr(provider, "_active_span_processor", None)
    if not isinstance(processors, SpanProcessor):
        return False
    there = getattr(processors.on_end, "__self__", None)
    (there if isinstance(there, _Cutting) else _Cutting(processors)).add(privacy)
    return True


def _text(name: object) -> str:
    """Return a name that can be encoded: what is no text, or half a character, would cost all spans of the batch."""
    text = name if isinstance(name, str) else str(name)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _counted(attributes: dict[str, Any], dropped: int) -> Any:
    """Attributes that say how many the limits took, as the SDK's own do."""
    if not dropped:
        return attributes
    counted = BoundedAttributes(attributes=attributes)
    counted.dropped = dropped
    return counted


def _listed(items: list[Any], dropped: int) -> Any:
    """Events or links that say how many the limits took, as the SDK's own do."""
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

    Its arguments, and the environment variables that it reads, are the official one's.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See OpenTelemetry's SDK."""
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(encode(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class _Watch(HTTPAdapter):
    """Sees what became of an export: the exporters themselves say no more than that it failed.

    Attributes:
        failure: Why the last try failed; empty if it did not.
        refused: How many spans the backend refused of a batch that it took.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure, self.refused = _OTHER, 0
        self._certificate = environment.first(os.environ, "CERTIFICATE")
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        # A connection that was open at a fork is the parent's, and another thread may have held the pool's lock.
        self._of_parent = self.poolmanager, self.proxy_manager
        self.proxy_manager = {}
        self.init_poolmanager(DEFAULT_POOLSIZE, DEFAULT_POOLSIZE)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        if self._certificate is not None:
            kwargs["verify"] = self._certificate  # requests prefers REQUESTS_CA_BUNDLE to what the exporter says
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
            # An answer that is none: the status says that it took them.
            with contextlib.suppress(DecodeError):
                self.refused = ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans
        return response


def _failure(status: int) -> str:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return ""
    # A redirection is not followed: the headers may hold a key, and are for one address.
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 429}:
        return _UNAVAILABLE
    return _REJECTED


class Outlet(SpanExporter):
    """Hands spans to an exporter, cut of what must not leave; counts and tells what is lost.

    Args:
        exporter: Where they go.
        privacy: Cuts them.
        counts: Where they are counted.
        watch: Knows why the exporter failed, if somebody does.
    """

    def __init__(self, exporter: SpanExporter, privacy: Privacy, counts: "Counts", watch: _Watch | None = None) -> None:
        self._exporter = exporter
        self._privacy = privacy
        self._counts = counts
        self._watch = watch
        self.begin()

    def begin(self) -> None:
        """Know nothing of what was sent before: in the child of a fork, that is the parent's to tell."""
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
            self._watch.failure = _OTHER  # until it was asked to send something
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
        """Count and tell what nobody will send: what waits, and what the backend has not answered."""
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
            # The official exporter takes a redirection for a success.
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
        # A line a minute at most, however often it comes and goes. The endpoint stays out: it may hold a password.
        if failure:
            self._lost += count
            if time.monotonic() - self._told_at >= _REMIND_SECONDS:
                self._told_at, self._told = time.monotonic(), True
                logs.get_logger().warning("telemetry.export_failed", error_type=failure, spans_lost=self._lost)
        elif self._told:
            logs.get_logger().info("telemetry.export_resumed", spans_lost=self._lost)
            self._lost, self._told = 0, False


class Counts:
    """OpenTelemetry's SDK metrics, by their conventional names, in Prometheus' form.

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
        """Show how full its queue is; with several exporters, of all together."""
        self._watched.append(batches)

    def dropped(self) -> None:
        """Count a span that found no room."""
        self._dropped.inc()

    def exported(self, count: int, error_type: str) -> None:
        """Count spans that the exporter was handed, and what became of them."""
        self._processed.labels("").inc(count)
        self._exported.labels(error_type).inc(count)


class Batches(BatchSpanProcessor):
    """OpenTelemetry's batch processor, which counts what it drops and ends in bounded time.

    The SDK's own counts need a second metrics library in the process, and its end waits half a minute for a backend
    that hangs.

    Args:
        outlet: Where spans go.
        counts: Where they are counted.
    """

    def __init__(self, outlet: Outlet, counts: Counts) -> None:
        super().__init__(outlet, meter_provider=NoOpMeterProvider())
        self._began_ns = 0
        self._backdated: set[int] = set()
        begin = weakref.WeakMethod(self._begin_in_child)
        os.register_at_fork(after_in_child=lambda: (call := begin()) and call())
        self._outlet = outlet
        self._counts = counts
        self._queue = self._batch_processor._queue  # noqa: SLF001  # not public; the tests notice when it is another
        self.capacity: int = self._queue.maxlen or 0
        counts.watch(self)

    def _begin_in_child(self) -> None:
        # The SDK's processor empties its queue and starts its thread again, but knows nothing of what is not its own.
        self._began_ns = time.time_ns()
        self._backdated = set()
        self._outlet.begin()

    @property
    def waiting(self) -> int:
        """How many spans wait: who can come back later need not have any dropped."""
        return len(self._queue)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See OpenTelemetry's SDK."""
        del parent_context
        if (span.start_time or 0) < self._began_ns and span.context is not None and span.context.trace_flags.sampled:
            self._backdated.add(span.context.span_id)  # it begins in this process, whatever time it is given

    def on_end(self, span: ReadableSpan) -> None:
        """See OpenTelemetry's SDK."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if (span.start_time or 0) < self._began_ns:
            if span.context.span_id not in self._backdated:
                return  # it was open at a fork, so the parent has it too and sends it
            self._backdated.discard(span.context.span_id)
        if len(self._queue) >= self.capacity:
            self._counts.dropped()
        super().on_end(span)

    def shutdown(self) -> None:
        """Send what is there, for as long as that may take, say what is left, and end."""
        self._batch_processor.shutdown(int(STOP_SECONDS * 1000))
        self._outlet.give_up(self.waiting)


def processors(registry: CollectorRegistry, privacy: Privacy) -> list[Batches]:
    """Make what the environment asks for, after `environment.prepare`.

    Args:
        registry: Where to count.
        privacy: Cuts spans.

    Returns:
        One for each exporter; none if nothing is to be exported.
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
        except Exception as error:  # noqa: BLE001  # an installed one does what it likes; the service starts
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
    """How long an export may take. The specification counts milliseconds; Python's exporter takes them for seconds."""
    limits = environment.first(os.environ, "TIMEOUT"), os.environ.get("OTEL_BSP_EXPORT_TIMEOUT")
    return min(int(limit or default) for limit, default in zip(limits, (10_000, 30_000), strict=True)) / 1000


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
