"""Telemetry never hurts the service: what happens to spans, and to requests, while nobody takes the spans."""

import os
import socket
import statistics
import threading
import time
from unittest import mock

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState
from prometheus_client import CollectorRegistry

from servicekit.telemetry import environment
from servicekit.telemetry.exporter import PERSONAL, Batches, Counts, Outlet, Privacy, cut_stacktrace, processors
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually
from tests.servicekit.backend import Authority, Backend, run_python, tell

PROCESSED = "otel_sdk_processor_span_processed_total"
EXPORTED = "otel_sdk_exporter_span_exported_total"
FAILURES = ("timeout", "unavailable", "rejected", "shutdown", "_OTHER")


class Sender:
    """What makes spans in this process, and sends them as the environment wants it."""

    def __init__(self, made, registry):
        self._registry = registry
        self._provider = TracerProvider(resource=Resource({"service.name": "sample"}), shutdown_on_exit=False)
        for processor in made:
            self._provider.add_span_processor(processor)
        self.tracer = self._provider.get_tracer("tests")
        self.shutdown = self._provider.shutdown

    def span(self, name="work", **attributes):
        self.tracer.start_span(name, attributes=attributes).end()

    def value(self, name, **labels):
        return self._registry.get_sample_value(name, labels)

    def exported(self, error_type=""):
        return self.value(EXPORTED, error_type=error_type)


@pytest.fixture(params=["compact", "otlp"])
def exporter(request):
    return request.param


@pytest.fixture
def start(exporter):
    """`start(endpoint, allowed)`: a Sender with these variables."""
    senders = []

    def run(endpoint, allowed=None, **variables):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": exporter, **variables}
        os.environ.update(variables)
        assert environment.prepare(os.environ) == []
        registry = CollectorRegistry()
        senders.append(Sender(processors(registry, Privacy(allowed)), registry))
        return senders[-1]

    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            del os.environ[name]
        yield run
    for sender in senders:
        sender.shutdown()


@pytest.fixture
def backend():
    made = Backend()
    yield made
    made.stop()


@pytest.fixture
def told():
    """The exporter's log events: (event, error_type)."""
    events = []

    def keep(_logger, _method, event):
        if event["event"].startswith("telemetry."):
            events.append((event["event"], event.get("error_type")))
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[keep])
    yield events
    structlog.configure(processors=before)


@pytest.fixture
def say():
    """`say(answer)`: where something answers each request with these bytes, and closes the connection."""
    sockets = []

    def listen(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield listen
    for listener in sockets:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_all_counters_are_there_at_0_from_the_start(start, backend):
    sender = start(backend.endpoint)
    assert [sender.value(PROCESSED, error_type=kind) for kind in ("", "queue_full")] == [0, 0]
    assert [sender.exported(kind) for kind in ("", *FAILURES)] == [0] * 6
    assert sender.value("otel_sdk_processor_span_queue_capacity") == 2048
    assert sender.value("otel_sdk_processor_span_queue_size") == 0


def test_what_was_sent_is_counted_and_comes_within_a_second(start, backend):
    sender = start(backend.endpoint)
    began = time.monotonic()
    sender.span()
    backend.one("work")
    assert time.monotonic() - began < 1
    eventually(lambda: sender.exported() == 1)
    assert sender.value(PROCESSED, error_type="") == 1


def test_without_an_endpoint_there_is_no_thread_and_no_metric(start):
    before = threading.active_count()
    sender = start("", OTEL_TRACES_EXPORTER="")
    assert threading.active_count() == before
    assert sender.exported() is None


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(301, "rejected"), (307, "rejected"), (400, "rejected"), (401, "rejected"), (404, "rejected"),
     (408, "unavailable"), (413, "rejected"), (429, "unavailable"), (500, "unavailable"), (503, "unavailable")],
)  # fmt: skip
def test_what_a_backend_refuses_is_counted_by_class_and_told(start, backend, told, status, error_type):
    backend.status, backend.retry_after = status, 60
    sender = start(backend.endpoint)
    sender.span()
    eventually(lambda: sender.exported(error_type) == 1)
    assert sender.exported() == 0
    assert told == [("telemetry.export_failed", error_type)]
    sender.span()
    eventually(lambda: sender.exported(error_type) == 2)
    assert len(told) == 1  # once a minute


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        (b"", "unavailable"),
        (b"nonsense", "unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnonsense", "unavailable"),
    ],
)
def test_what_is_no_answer_is_counted_and_told(start, say, told, answer, error_type):
    sender = start(say(answer), OTEL_EXPORTER_OTLP_TIMEOUT="500")
    sender.span()
    eventually(lambda: sender.exported(error_type) == 1)
    assert sender.exported() == 0
    assert told == [("telemetry.export_failed", error_type)]


def test_a_body_that_is_no_message_counts_as_the_status_says(start, backend, told):
    backend.answer = b"nonsense"
    sender = start(backend.endpoint)
    sender.span()
    eventually(lambda: sender.exported() == 1)
    assert told == []


def test_a_backend_that_is_not_there_is_told_once_and_again_when_it_is_back(start, told):
    port = free_port()
    sender = start(f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_TIMEOUT="500")
    for number in range(1, 4):
        sender.span()
        eventually(lambda wanted=number: sender.exported("unavailable") == wanted)
    assert told == [("telemetry.export_failed", "unavailable")]
    backend = Backend(port)
    sender.span("back")
    assert backend.one("back")
    eventually(lambda: len(told) == 2)
    assert told[1] == ("telemetry.export_resumed", None)
    backend.stop()


def test_a_backend_that_hangs_is_given_up_in_time(start, backend, told):
    backend.frozen.set()
    sender = start(backend.endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="300")
    sender.span()
    eventually(lambda: sender.exported("timeout") == 1, 5)
    assert told == [("telemetry.export_failed", "timeout")]


def test_a_short_pause_of_the_backend_loses_nothing(start, backend, told):
    backend.status, backend.retry_after = 503, 1
    sender = start(backend.endpoint)
    sender.span()
    eventually(lambda: backend.requests)
    backend.status = 200
    assert backend.one("work")
    assert told == []


def test_spans_that_a_backend_refuses_of_a_batch_it_takes_are_lost(start, backend, told):
    backend.answer = ExportTraceServiceResponse(partial_success={"rejected_spans": 1}).SerializeToString()
    sender = start(backend.endpoint)
    sender.span()
    sender.span()
    eventually(lambda: sender.exported("rejected") + sender.exported() == 2)
    assert sender.exported("rejected") >= 1
    assert told == [("telemetry.export_failed", "rejected")]


def test_what_the_queue_cannot_hold_is_counted(start, backend):
    backend.frozen.set()
    sender = start(backend.endpoint, OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10")
    sender.span()
    eventually(lambda: backend.requests)
    for _ in range(50):
        sender.span()
    assert sender.value(PROCESSED, error_type="queue_full") == 30
    assert sender.value("otel_sdk_processor_span_queue_size") == 20


def test_a_backend_that_hangs_does_not_hold_up_the_end_and_what_it_has_not_taken_is_told(start, backend, told):
    backend.frozen.set()
    sender = start(backend.endpoint)
    sender.span()
    eventually(lambda: backend.requests)
    sender.span()
    began = time.monotonic()
    sender.shutdown()
    assert time.monotonic() - began < 2.5
    assert told == [("telemetry.export_failed", "shutdown")]
    sender.shutdown()  # a second app of the process
    assert sender.exported("shutdown") == 2
    assert len(told) == 1


def test_the_last_spans_are_sent_before_the_end(start, backend):
    sender = start(backend.endpoint)
    for _ in range(700):
        sender.span()
    sender.shutdown()
    assert len(backend.spans) == 700


def test_half_a_character_in_a_name_costs_no_other_span(start, backend):
    sender = start(backend.endpoint)
    sender.span("half \ud83d")
    sender.span("caf\u00e9")
    sender.shutdown()
    assert [span.name for span in backend.spans] == ["half ?", "caf\u00e9"]


@pytest.mark.parametrize(
    ("root", "path"),
    [("", "/v1/traces"), ("/", "/v1/traces"), ("//", "/v1/traces"), ("/a/b", "/a/b/v1/traces"),
     ("/a/b/", "/a/b/v1/traces"), ("/v1/traces", "/v1/traces/v1/traces"), ("?key=1", "/v1/traces?key=1")],
)  # fmt: skip
def test_the_path_of_the_endpoint_is_kept(start, backend, root, path):
    sender = start(backend.endpoint + root)
    sender.span()
    sender.shutdown()
    assert backend.paths == [path]


def test_a_user_and_password_in_the_endpoint_are_sent(start, backend):
    sender = start(backend.endpoint.replace("//", "//me:pa%20ss@"))
    sender.span()
    sender.shutdown()
    assert backend.headers_by_lower_name()["authorization"] == "Basic bWU6cGEgc3M="


class Broken(SpanExporter):
    def export(self, _spans):
        raise RuntimeError("canary")


def test_an_exporter_that_raises_is_counted(told):
    registry = CollectorRegistry()
    counts = Counts(registry)
    sender = Sender([Batches(Outlet(Broken(), Privacy(), counts), counts)], registry)
    sender.span()
    sender.shutdown()
    assert sender.exported("_OTHER") == 1
    assert told == [("telemetry.export_failed", "_OTHER")]


def test_attributes_that_nobody_listed_stay_here(start, backend):
    sender = start(backend.endpoint, ["db.query.text", "shop."])
    sender.span(**{"shop.order.id": 7, "shopping": 1, "user.email": "canary", "db.query.text": "SELECT", "other": "x"})
    sender.shutdown()
    assert backend.one("work").attributes == {"shop.order.id": 7, "db.query.text": "SELECT"}


def test_without_a_list_what_is_known_to_be_personal_stays_here(start, backend):
    sender = start(backend.endpoint)
    personal = [*PERSONAL, "http.request.header.cookie", "http.response.header.x", "db.query.parameter.0"]
    sender.span(**dict.fromkeys(personal, "canary"), own="kept")
    sender.shutdown()
    assert backend.one("work").attributes == {"own": "kept"}
    assert b"canary" not in backend.bodies[0]


def test_a_prefix_in_a_list_lets_out_nothing_personal_but_a_whole_name_does(start, backend):
    sender = start(backend.endpoint, ["http.", "url.", "net.peer.name", "http.request.header.x_tenant"])
    kept = {"http.route": "/", "url.scheme": "http", "net.peer.name": "shelf", "http.request.header.x_tenant": "7"}
    dropped = ["http.target", "http.url", "url.path", "http.request.header.x_other", "net.peer.ip"]
    sender.span(**kept, **dict.fromkeys(dropped, "canary"))
    sender.shutdown()
    assert backend.one("work").attributes == kept


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "name",
    ["authorization", "proxy_authorization", "Proxy-Authorization", "cookie", "set_cookie", "x_api_key", "x-api-key",
     "apikey", "x_auth_token", "x_amz_security_token", "x_csrf_token", "x_session_id", "x_client_secret"],
)  # fmt: skip
def test_a_header_with_a_secret_never_leaves(start, backend, name, listed):
    headers = [f"http.{way}.header.{name}" for way in ("request", "response")] + [f"rpc.request.metadata.{name}"]
    sender = start(backend.endpoint, [*headers, "own"] if listed else None)
    sender.span(**dict.fromkeys(headers, "canary"), own="kept")
    sender.shutdown()
    assert backend.one("work").attributes == {"own": "kept"}


def test_old_names_of_what_is_personal_are_known(start, backend):
    old = ["http.host", "http.server_name", "http.target", "http.url", "http.user_agent", "http.client_ip",
           "net.host.name", "net.host.ip", "net.peer.ip", "net.peer.name", "net.sock.peer.addr", "net.sock.peer.name",
           "db.statement.parameters", "enduser.role", "enduser.scope"]  # fmt: skip
    sender = start(backend.endpoint)
    sender.span(**dict.fromkeys(old, "canary"), own="kept")
    sender.shutdown()
    assert backend.one("work").attributes == {"own": "kept"}


def test_what_is_no_name_costs_no_other_span(start, backend):
    sender = start(backend.endpoint)
    sender.span(7)
    sender.span("good")
    sender.shutdown()
    assert [span.name for span in backend.spans] == ["7", "good"]


def test_of_events_links_and_states_what_is_personal_stays_here(start, backend):
    state = TraceState([("vendor", "canary")])
    parent = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    links = [Link(SpanContext(3, 4, is_remote=True, trace_state=state), {"user.id": "canary", "why": "cause"})]
    sender = start(backend.endpoint)
    around = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    message = "canary\ncanary of a second line"  # apart from the line that raises it, which is code and stays

    def work():
        with sender.tracer.start_as_current_span("work", context=around, links=links) as span:
            span.add_event("seen", {"user.id": "canary", "at": "door"})
            raise RuntimeError(message)

    with pytest.raises(RuntimeError):
        work()
    sender.shutdown()
    raw = backend.raw("work")
    assert b"canary" not in backend.bodies[0]
    assert [attribute.key for attribute in raw.links[0].attributes] == ["why"]
    seen, exception = raw.events
    assert [attribute.key for attribute in seen.attributes] == ["at"]
    texts = {attribute.key: attribute.value.string_value for attribute in exception.attributes}
    assert texts["exception.type"] == "RuntimeError"
    assert "test_exporter.py" in texts["exception.stacktrace"]
    assert "exception.message" not in texts
    assert (raw.trace_state, raw.status.message) == ("", "")


def test_a_stack_trace_keeps_its_frames():
    frames = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\na.Error'
    assert cut_stacktrace(f'{frames}: canary\n  File "canary"\n') == frames
    assert not cut_stacktrace("canary")


KEY = "canary-key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture
def hosted(authority):
    """A backend on the internet: TLS, a path, a key."""
    made = Backend(tls=authority.tls())
    made.path, made.key = "/otlp/tenant/v1/traces", KEY
    yield made
    made.stop()


def test_a_hosted_backend_gets_spans_and_no_log_line_has_its_key(hosted, authority, exporter):
    told = tell(
        hosted,
        {
            "OTEL_TRACES_EXPORTER": exporter,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{hosted.endpoint}/otlp/tenant/",
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.ca),
        },
        level="debug",
        pause=0.5,
    )
    assert told.inner.service == "sample"
    assert told.metric(EXPORTED, error_type="") == 2
    assert hosted.headers_by_lower_name()["content-encoding"] == "gzip"
    assert KEY not in told.output
    assert "tenant" not in told.output


@pytest.mark.parametrize(
    ("change", "error_type"),
    [
        ({"OTEL_EXPORTER_OTLP_HEADERS": "api-key=canary-other"}, "rejected"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "{root}/canary-path?canary-query=1"}, "rejected"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": ""}, "unavailable"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://canary-user:canary-password@127.0.0.1:{nowhere}/"}, "unavailable"),
    ],
)
def test_a_hosted_backend_that_refuses_is_told_without_the_secrets(hosted, authority, change, error_type):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "{root}/otlp/tenant",
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.ca),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "700",
        **change,
    }
    filled = {name: value.format(root=hosted.endpoint, nowhere=free_port()) for name, value in variables.items()}
    told = tell(hosted, filled, level="debug", pause=1)
    assert told.metric(EXPORTED, error_type=error_type) == 2
    assert [line["error_type"] for line in told.named("telemetry.export_failed")] == [error_type]
    assert "canary" not in told.output


@pytest.fixture(scope="module")
def took_without():
    """How long requests take, in seconds, where nothing is exported."""
    free = tell(None, {"OTEL_TRACES_EXPORTER": "none"}, [{}] * 300)
    return [line["seconds"] for line in free.named("test.answered")]


@pytest.mark.parametrize("trouble", ["nowhere", "hangs", 401, 413, 503])
def test_no_request_is_slower_for_it_and_the_process_ends_in_time(backend, exporter, took_without, trouble):
    if trouble == "hangs":
        backend.frozen.set()
    elif trouble != "nowhere":
        backend.status = trouble
    endpoint = f"http://127.0.0.1:{free_port()}" if trouble == "nowhere" else backend.endpoint
    variables = {"OTEL_TRACES_EXPORTER": exporter, "OTEL_BSP_SCHEDULE_DELAY": "1"}
    troubled = tell(backend, {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, [{}] * 300, pause=0.3)
    assert [line["status"] for line in troubled.named("test.answered")] == [200] * 300
    took = [line["seconds"] for line in troubled.named("test.answered")]
    assert statistics.median(took) < statistics.median(took_without) + 0.02  # a span costs a part of a millisecond
    assert max(took) < max(took_without) + 0.5
    assert troubled.named("test.ended")[0]["seconds"] < 2.5
    assert 1 <= len(troubled.named("telemetry.export_failed")) <= 2  # once, and at the end if there were more


FORKS = """
import os, sys, time
from prometheus_client import CollectorRegistry
from servicekit.telemetry.setup import Telemetry

registry = CollectorRegistry()
telemetry = Telemetry("sample", registry)
with telemetry.tracer.root("before", {}):
    pass
deadline = time.monotonic() + 10
while not registry.get_sample_value("otel_sdk_exporter_span_exported_total", {"error_type": ""}):
    assert time.monotonic() < deadline
    time.sleep(0.01)
child = os.fork()
for number in range(5):
    with telemetry.tracer.root("parent" if child else "child", {}):
        pass
    time.sleep(0.05)
telemetry.shutdown()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""


def test_spans_go_on_after_a_fork(backend, exporter):
    run_python(FORKS, {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint, "OTEL_TRACES_EXPORTER": exporter})
    assert sorted(span.name for span in backend.spans) == ["before", *["child"] * 5, *["parent"] * 5]
    # The resource of a child is its own: two processes are two instances.
    instances = {span.name: span.resource["service.instance.id"] for span in backend.spans}
    assert instances["before"] == instances["parent"] != instances["child"]
