"""Each environment variable does what the documentation says; what it cannot be is told, and the service starts."""

import functools
import re
import sys
import types

import pytest
from opentelemetry import environment_variables
from opentelemetry.instrumentation import environment_variables as instrumentation_variables
from opentelemetry.sdk import environment_variables as sdk_variables
from opentelemetry.util import http as util_http

from servicekit.telemetry.environment import (
    CHECKED,
    DAY_MS,
    SAMPLERS,
    VARIABLES,
    Ignored,
    measures,
    prepare,
    service_name,
)
from servicekit.telemetry.exporter import PERSONAL
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually
from tests.servicekit.backend import PROJECT, Authority, Backend, tell

BY_NAME = {variable.name: variable for variable in VARIABLES}
PARENT = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1", "baggage": "tenant=7"}
EXPORTED = "otel_sdk_exporter_span_exported_total"

CODE = """
import builtins
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

class Propagator:
    fields = {"x-house"}
    def extract(self, carrier, context=None, getter=None):
        return context or {}
    def inject(self, carrier, context=None, setter=None):
        carrier["x-house"] = "1"

class Exporter(SpanExporter):
    def export(self, spans):
        for span in spans:
            builtins.print("house", span.name)
        return SpanExportResult.SUCCESS

class Detector(ResourceDetector):
    def detect(self):
        return Resource({"house.number": "7"})

def sampler(argument):
    return {"off": ALWAYS_OFF, "on": ALWAYS_ON}[argument]

def refuses(*_):
    raise RuntimeError("canary")
"""
CONTEXT_CODE = """
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

class HouseContext(ContextVarsRuntimeContext):
    pass
"""
ENTRY_POINTS = """
[opentelemetry_propagator]
house = house:Propagator
missing = not_there:Propagator
[opentelemetry_traces_exporter]
house = house:Exporter
refuses = house:refuses
[opentelemetry_traces_sampler]
house = house:sampler
[opentelemetry_context]
house = house_context:HouseContext
[opentelemetry_resource_detector]
house = house:Detector
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "others")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with a package that has things for OpenTelemetry."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "house.py").write_text(CODE)
    (folder / "house_context.py").write_text(CONTEXT_CODE)
    information = folder / "house-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="module")
def run(authority, stranger, installed):
    """`run(environment, ...)`: what a process with it says and sends; the same is run once."""
    backends = []
    files = {
        "ca": authority.ca, "client": authority.client, "client_key": authority.client_key, "other_ca": stranger.ca,
        "other_client": stranger.client, "other_key": stranger.client_key,
    }  # fmt: skip

    @functools.cache
    def cached(environment, requests, pause, tls, frozen, key, allowed):
        backend = Backend(tls=authority.tls(client=True) if tls else None)
        backends.append(backend)
        backend.key = key
        if frozen:
            backend.frozen.set()
        places = {"url": backend.endpoint, "nowhere": f"http://127.0.0.1:{free_port()}", **files}
        filled = {name: value.format(**places) for name, value in environment}
        headers = [dict(of_one) for of_one in requests]
        return tell(backend, filled, headers, pause=pause, path=[installed], allowed=allowed)

    def runs(environment, requests=({},), *, pause=0.0, tls=False, frozen=False, key=None, allowed=None):
        if "OTEL_EXPORTER_OTLP_ENDPOINT" not in environment:
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}", **environment}
        frozen_requests = tuple(tuple(headers.items()) for headers in requests)
        return cached(tuple(environment.items()), frozen_requests, pause, tls, frozen, key, allowed)

    yield runs
    for backend in backends:
        backend.stop()


CASES = []


def row(*names, env=None, **options):
    """Say that this checks the effect of these variables."""

    def register(check):
        CASES.extend(
            pytest.param(name, {n: v for n, v in (env or {}).items() if v is not None}, options, check, id=name)
            for name in names
        )
        return check

    return register


@row("OTEL_SDK_DISABLED", env={"OTEL_SDK_DISABLED": " TRUE"}, requests=[PARENT])
def nothing_is_recorded_and_the_context_handed_on(told):
    assert told.backend.requests == 0
    (headers,) = told.handed_on
    assert headers["traceparent"].startswith(PARENT["traceparent"][:36])
    assert (headers["tracestate"], headers["baggage"]) == (PARENT["tracestate"], PARENT["baggage"])


WHOSE = {
    "OTEL_SERVICE_NAME": "parcel-service",
    "OTEL_RESOURCE_ATTRIBUTES": " service.name=lost , team=a%2Cb%20c,service.version=8,",
}


@row("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", env=WHOSE)
def the_resource_is_the_environments(told):
    resource = told.inner.resource
    assert (resource["service.name"], resource["team"], resource["service.version"]) == ("parcel-service", "a,b c", "8")


@row("OTEL_PROPAGATORS", env={"OTEL_PROPAGATORS": "TraceContext,,"}, requests=[PARENT])
def the_context_is_carried_by_what_is_named(told):
    (headers,) = told.handed_on
    assert set(headers) == {"traceparent", "tracestate"}
    assert told.inner.trace_id == "a" * 32


@row("OTEL_TRACES_SAMPLER", env={"OTEL_TRACES_SAMPLER": "Always_Off "}, requests=[PARENT])
def no_trace_is_recorded_not_even_one_that_came_recorded(told):
    assert told.backend.requests == 0
    assert told.handed_on[0]["traceparent"].endswith("-00")


SHARE = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}


@row("OTEL_TRACES_SAMPLER_ARG", env=SHARE, requests=[{}, PARENT])
def of_the_traces_that_begin_here_that_share_is_recorded(told):
    assert told.inner.trace_id == "a" * 32


@row("OTEL_TRACES_EXPORTER", env={"OTEL_TRACES_EXPORTER": "Console, OTLP"})
def spans_go_where_it_says(told):
    assert [line["name"] for line in told.printed] == ["inner", "GET /work"]
    assert told.backend.one("inner").service == "sample"
    assert told.metric("otel_sdk_processor_span_queue_capacity") == 2 * 2048


@row("OTEL_METRICS_EXPORTER", env={"OTEL_METRICS_EXPORTER": "NONE"})
def there_are_no_metrics(told):
    assert told.named("test.measured")[0]["status"] == 404


@row("OTEL_EXPORTER_OTLP_ENDPOINT", env={"OTEL_EXPORTER_OTLP_ENDPOINT": " {url}/some/path/?tenant=7 "})
def the_path_is_put_after_its_own(told):
    assert set(told.backend.paths) == {"/some/path/v1/traces?tenant=7"}


TRACES_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "{nowhere}", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{url}/here?a=b"}


@row("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", env=TRACES_ENDPOINT)
def it_is_used_as_it_is(told):
    assert set(told.backend.paths) == {"/here?a=b"}


GENERAL = {
    "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%3Db, x-plain=two words",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "{ca}",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "{client}",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "{client_key}",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "HTTP/protobuf",
    "REQUESTS_CA_BUNDLE": "{other_ca}",
}
TRACES = {
    "OTEL_EXPORTER_OTLP_HEADERS": "api-key=lost,x-plain=lost",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=a%3Db",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "{other_ca}",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "{ca}",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "{other_client}",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "{client}",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "{other_key}",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "{client_key}",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}


@row(*[name for name in GENERAL if name.startswith("OTEL_")], env=GENERAL, tls=True, key="a=b")
def the_export_is_as_they_say(told):
    assert told.inner.name == "inner"
    headers = told.backend.headers_by_lower_name()
    assert (headers["x-plain"], headers["content-encoding"]) == ("two words", "gzip")
    assert headers["content-type"] == "application/x-protobuf"


@row(*[name for name in TRACES if "_TRACES_" in name], env=TRACES, tls=True, key="a=b")
def what_is_said_for_traces_wins(told):
    assert told.inner.name == "inner"
    headers = told.backend.headers_by_lower_name()
    assert "x-plain" not in headers
    assert headers["content-encoding"] == "deflate"
    assert headers["content-type"] == "application/x-protobuf"


LATE = {"frozen": True, "pause": 0.8}


@row("OTEL_EXPORTER_OTLP_TIMEOUT", env={"OTEL_EXPORTER_OTLP_TIMEOUT": "250"}, **LATE)
@row(
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    env={"OTEL_EXPORTER_OTLP_TIMEOUT": "0", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "250"},
    **LATE,
)
@row("OTEL_BSP_EXPORT_TIMEOUT", env={"OTEL_BSP_EXPORT_TIMEOUT": "250"}, **LATE)
def an_export_ends_after_so_many_milliseconds(told):
    assert told.metric(EXPORTED, error_type="timeout") == 2


@row("OTEL_BSP_SCHEDULE_DELAY", env={"OTEL_BSP_SCHEDULE_DELAY": "60000"}, pause=0.6)
def so_long_spans_wait(told):
    assert told.metric("otel_sdk_processor_span_queue_size") == 2
    assert told.inner.name == "inner"  # at the end they are sent all the same


@row("OTEL_BSP_MAX_QUEUE_SIZE", env={"OTEL_BSP_MAX_QUEUE_SIZE": "3"}, frozen=True, requests=[{}] * 5)
def so_many_spans_wait_and_what_is_more_is_dropped(told):
    assert told.metric("otel_sdk_processor_span_queue_capacity") == 3
    assert told.metric("otel_sdk_processor_span_processed_total", error_type="queue_full") >= 4


@row("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", env={"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
def so_many_spans_are_sent_at_once(told):
    assert told.backend.batches == [1, 1]


EACH_LIMIT = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "0",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "1",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "1",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "1",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "1",
}


@row(*[name for name in EACH_LIMIT if not name.startswith("OTEL_ATTRIBUTE_")], env=EACH_LIMIT)
def each_limit_holds_and_what_it_took_is_counted(told):
    span = told.backend.raw("inner")
    assert [(item.key, len(item.value.string_value)) for item in span.attributes] == [("b", 1), ("c", 0)]
    (event,), (link,) = span.events, span.links
    assert (len(event.attributes), len(link.attributes)) == (1, 1)
    assert (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count) == (1, 1, 1)
    assert (event.dropped_attributes_count, link.dropped_attributes_count) == (1, 1)


ALL_LIMITS = {"OTEL_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"}


@row(*ALL_LIMITS, env={**ALL_LIMITS, "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "2"})
def the_limit_for_all_counts_where_there_is_none_of_its_own(told):
    span = told.backend.raw("inner")
    assert len(span.attributes) == 1
    assert [len(event.attributes) for event in span.events] == [2, 2]
    assert [len(link.attributes) for link in span.links] == [1, 1]
    assert span.events[0].attributes[0].value.string_value == "0123"


@row("OTEL_SEMCONV_STABILITY_OPT_IN", env={"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"})
def attributes_have_old_names_too(told):
    attributes = told.backend.one("GET /work").attributes
    assert attributes["http.method"] == attributes["http.request.method"] == "GET"


CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS"
CAPTURED = {
    f"{CAPTURE}_SERVER_REQUEST": " X-.*, Cookie,Authorization ,",
    f"{CAPTURE}_SERVER_RESPONSE": "x-tenant,set-cookie",
    f"{CAPTURE}_SANITIZE_FIELDS": "x-hidden,",
}
LISTED = (
    "http.request.header.",
    *(f"http.request.header.{name}" for name in ("x_tenant", "x_hidden", "cookie", "authorization", "x_auth_token")),
    *(f"http.response.header.{name}" for name in ("x_tenant", "set_cookie")),
)
SENT = {"X-Tenant": "six", "X-Hidden": "canary-hidden", "Cookie": "canary-cookie", "Authorization": "canary-token",
        "X-Auth-Token": "canary-token", "X-Unlisted": "canary-unlisted"}  # fmt: skip


@row(*CAPTURED, env=CAPTURED, requests=[SENT], allowed=LISTED)
def the_headers_that_it_and_the_list_name_are_attributes_but_never_a_secret(told):
    span = told.backend.raw("GET /work")
    captured = {
        each.key: [value.string_value for value in each.value.array_value.values]
        for each in span.attributes
    }  # fmt: skip
    assert captured == {
        "http.request.header.x_tenant": ["six"],
        "http.request.header.x_hidden": ["[REDACTED]"],
        "http.response.header.x_tenant": ["seven"],
    }
    assert all(b"canary" not in body for body in told.backend.bodies)


@row("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", env={"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "Process, house"})
def they_describe_the_resource_too(told):
    resource = told.inner.resource
    assert (resource["service.name"], resource["house.number"]) == ("sample", "7")
    assert resource["process.pid"]


@row("OTEL_PYTHON_TRACER_PROVIDER", env={"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"})
def spans_are_sent_as_without_it(told):
    assert told.inner.service == "sample"


@row("OTEL_PYTHON_CONTEXT", env={"OTEL_PYTHON_CONTEXT": "house"})
def it_keeps_the_current_span(told):
    assert told.named("test.found")[0]["context"] == "HouseContext"
    assert told.inner.parent_id == told.backend.one("GET /work").span_id


@row("OTEL_PYTHON_EXCLUDED_URLS", env={"OTEL_PYTHON_EXCLUDED_URLS": "nowhere,wo.k$,"})
@row(
    "OTEL_PYTHON_FLASK_EXCLUDED_URLS",
    env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "wo.k$,", "OTEL_PYTHON_EXCLUDED_URLS": "nowhere"},
)
def requests_for_it_get_no_span(told):
    assert not told.backend.named("GET /work")


@pytest.mark.parametrize(("name", "env", "options", "check"), CASES)
def test_each_variable_has_its_effect(run, name, env, options, check):
    assert name in env
    told = run(env, **options)
    assert told.ignored == []
    check(told)


def test_each_variable_is_tested_and_documented():
    page = (PROJECT / "docs" / "opentelemetry.md").read_text()
    assert [case.id for case in CASES if case.id not in BY_NAME] == []
    assert {case.id for case in CASES} == set(BY_NAME)
    assert re.findall(r"^\| `(OTEL_\w+)` \|", page, re.MULTILINE) == list(BY_NAME)


def test_without_any_the_defaults_count(run):
    told = run({}, [PARENT, {}], pause=0.5)
    assert told.ignored == []
    assert told.metric(EXPORTED, error_type="") == 4  # within 200 ms, not 5 s
    assert told.metric("otel_sdk_processor_span_queue_capacity") == 2048
    assert set(told.handed_on[0]) == {"traceparent", "tracestate", "baggage"}
    headers = told.backend.headers_by_lower_name()
    assert "content-encoding" not in headers
    assert set(told.backend.paths) == {"/v1/traces"}
    inner, _ = told.backend.named("inner")
    assert (inner.service, inner.resource["service.version"]) == ("sample", "7")
    assert (inner.attributes, len(inner.events), len(inner.links)) == ({"a": "0123456789", "b": "b", "c": 3}, 2, 2)
    server, _ = told.backend.named("GET /work")
    assert "http.method" not in server.attributes


@pytest.mark.parametrize(("named", "service"), [(" parcel-service ", "parcel-service"), ("\udcff", "product-service")])
def test_under_gunicorn_log_lines_have_the_name_too(start, named, service):
    server = start("product_service.app:create_app()", OTEL_SERVICE_NAME=named)
    eventually(server.is_up, 30)
    server.stop()
    assert {event["service"] for event in server.events} == {service}


def test_without_an_endpoint_nothing_is_sent(run):
    told = run({"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    assert told.ignored == []
    assert "otel_sdk" not in told.named("test.counted")[0]["metrics"]


def test_what_is_installed_works(run):
    told = run({
        "OTEL_PROPAGATORS": "house",
        "OTEL_TRACES_EXPORTER": "house",
        "OTEL_TRACES_SAMPLER": "house",
        "OTEL_TRACES_SAMPLER_ARG": "on",
    })  # fmt: skip
    assert told.ignored == []
    assert told.handed_on == [{"x-house": "1"}]
    assert told.output.count("house inner") == 1
    assert not told.backend.requests


def test_a_sampler_that_is_installed_gets_its_argument(run):
    told = run({"OTEL_TRACES_SAMPLER": "house", "OTEL_TRACES_SAMPLER_ARG": "off"})
    assert told.ignored == []
    assert not told.backend.requests


def test_what_is_installed_and_does_not_work_is_told_and_the_default_counts(run):
    told = run({
        "OTEL_PROPAGATORS": "missing",
        "OTEL_TRACES_EXPORTER": "refuses,otlp",
        "OTEL_TRACES_SAMPLER": "house",
        "OTEL_TRACES_SAMPLER_ARG": "canary",
    })  # fmt: skip
    assert sorted(told.ignored) == ["OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER"]
    assert "canary" not in told.output
    assert "traceparent" in told.handed_on[0]
    assert told.inner.name == "inner"


MISSING = "/nowhere/canary.pem"
NO_URL = [
    "canary", "canary.example:4318", "ftp://canary", "http://", "http:///canary", "http://canary:0", "http://canary:x",
    "http://canary:70000", "http://[canary", "http://a canary", "http://canary\u2100.example/", "//canary:4318",
]  # fmt: skip
NO_HEADERS = ["canary", "=canary", "a b=canary", "key=canary;b", 'key="canary"', "key=canary%0d%0aa: b", "a=1,canary",
              "key=canary%ff", "key=canary%E2%82%AC", "key=cänary", "k\u00e4y=canary"]  # fmt: skip
NO_NUMBER = ["canary", "-1", "1.5", "1e3", "1_000", "\u0663", "2147483648", "9" * 5000, "unset", "0x10"]
NO_SIZE = ["0", *NO_NUMBER]
NO_FILE = [MISSING, "/", str(PROJECT / "README.md"), "\x00canary"]
NO_EXPRESSION = ["[", "(canary", "a,*canary", "canary,(?i)b", "a{99999999999999999999}canary", "(" * 5000]
BAD = {
    "OTEL_SDK_DISABLED": ["yes", "1", "canary", "true,false"],
    "OTEL_SERVICE_NAME": ["canary\udcff"],
    "OTEL_RESOURCE_ATTRIBUTES": ["canary", "a=1,canary", "=canary", "a b=canary", "a=canary%ff", "a=canary\udcff"],
    "OTEL_PROPAGATORS": ["canary", "tracecontext,canary", "b3multi", "xray", "tracecontext baggage"],
    "OTEL_TRACES_SAMPLER": ["canary", "parentbased_jaeger_remote", "xray", "always_on,always_off"],
    "OTEL_TRACES_EXPORTER": ["canary", "zipkin,otlp", "otlp_proto_grpc", "otlp compact"],
    "OTEL_METRICS_EXPORTER": ["otlp", "canary", "prometheus,console"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": NO_URL,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NO_URL,
    "OTEL_BSP_SCHEDULE_DELAY": NO_NUMBER,
    "OTEL_BSP_MAX_QUEUE_SIZE": NO_SIZE,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ["2049", *NO_SIZE],
    "OTEL_BSP_EXPORT_TIMEOUT": NO_NUMBER,
    "OTEL_SEMCONV_STABILITY_OPT_IN": ["canary\udcff", "canary", "http,canary", "http dup", "database/canary", "stable"],
    "OTEL_PYTHON_FLASK_EXCLUDED_URLS": NO_EXPRESSION,
    "OTEL_PYTHON_EXCLUDED_URLS": NO_EXPRESSION,
    **{f"{CAPTURE}_{which}": NO_EXPRESSION for which in ("SERVER_REQUEST", "SERVER_RESPONSE", "SANITIZE_FIELDS")},
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": ["canary", "process,canary"],
    "OTEL_PYTHON_TRACER_PROVIDER": ["canary", "SDK"],
    "OTEL_PYTHON_CONTEXT": ["canary", "contextvars"],
    **{
        f"OTEL_EXPORTER_OTLP_{kind}{name}": values
        for kind in ("", "TRACES_")
        for name, values in {
            "HEADERS": NO_HEADERS,
            "TIMEOUT": NO_NUMBER,
            "COMPRESSION": ["canary", "br", "gzip,none", "zstd"],
            "CERTIFICATE": NO_FILE,
            "CLIENT_CERTIFICATE": NO_FILE,
            "CLIENT_KEY": [MISSING, "/"],
            "PROTOCOL": ["grpc", "http/json", "canary"],
        }.items()
    },
    **{name: NO_NUMBER for name in BY_NAME if name.endswith("_LIMIT")},
}


EACH_BAD = [pytest.param(name, value, id=f"{name}-{n}") for name in BAD for n, value in enumerate(BAD[name])]


@pytest.mark.parametrize(("name", "value"), EACH_BAD)
def test_a_bad_value_is_told_once_and_the_default_counts(name, value):
    environ = {name: value, "PATH": "untouched"}
    (problem,) = prepare(environ)
    assert problem.variable == name
    assert problem.reason
    assert "canary" not in problem.reason
    assert value not in problem.reason.split()
    expected: dict = {}
    prepare(expected)
    assert environ == {"PATH": "untouched", **expected, **_queue(name, environ)}
    assert prepare(environ) == []  # it is told once


def _queue(name, environ):
    """The batch's size is written down where one was given that is above the queue's."""
    batch = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    return {batch: environ[batch]} if name == batch and batch in environ else {}


def test_there_is_a_bad_value_for_each_variable_but_the_samplers_argument():
    assert {*BAD, "OTEL_TRACES_SAMPLER_ARG"} == set(BY_NAME)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_service_starts_whatever_they_hold(run, column):
    bad = {name: values[column % len(values)] for name, values in BAD.items() if not name.endswith("_ENDPOINT")}
    bad = {name: value for name, value in bad.items() if "\x00" not in value}
    told = run({**bad, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "canary"})
    expected = {*bad, "OTEL_TRACES_SAMPLER_ARG"} - {"OTEL_TRACES_SAMPLER"}
    assert sorted(told.ignored) == sorted(expected)
    assert "canary" not in told.output
    assert told.inner.name == "inner"
    assert set(told.handed_on[0]) == {"traceparent"}


def read_by_opentelemetry():
    """The variables that OpenTelemetry's packages name, as far as they are installed here."""
    modules = (environment_variables, sdk_variables, instrumentation_variables, util_http)
    named = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    more = {"OTEL_PYTHON_FLASK_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS", *BY_NAME, *(each.name for each in CHECKED)}
    return sorted({*(name for name in named if re.fullmatch(r"OTEL_[A-Z_]+", name)), *more})


@pytest.mark.parametrize("value", ["[", "(", "canary", "-1"])
def test_no_value_of_any_variable_that_opentelemetry_reads_ends_the_process_or_a_request(run, value):
    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
    bad = dict.fromkeys(set(read_by_opentelemetry()) - sent, value)
    assert len(bad) > 80
    told = run({**bad, "PYTHONWARNINGS": ""}, [{}, PARENT])
    assert [line["status"] for line in told.named("test.answered")] == [200, 200]
    assert {"OTEL_PYTHON_METER_PROVIDER", "OTEL_PYTHON_LOGGER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER"} < {
        *told.ignored
    }
    assert len(told.ignored) == len(set(told.ignored))
    assert len(told.backend.named("inner")) == 2
    assert all(line.startswith("{") for line in told.output.splitlines())


@pytest.mark.parametrize("name", [each.name for each in CHECKED])
def test_a_bad_value_for_the_instrumentation_of_others_is_told_too(name):
    environ = {name: "(canary"}
    (problem,) = prepare(environ)
    assert (problem.variable, name in environ) == (name, False)
    assert "canary" not in problem.reason
    assert name in (PROJECT / "docs" / "opentelemetry.md").read_text()


def test_a_good_value_for_the_instrumentation_of_others_stays():
    environ = {
        "OTEL_PYTHON_METER_PROVIDER": "sdk_meter_provider",
        "OTEL_PYTHON_LOGGER_PROVIDER": "sdk_logger_provider",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST": "x-.*",
    }
    before = dict(environ)
    assert prepare(environ) == []
    assert environ.items() >= before.items()


def test_urls_that_are_to_get_no_span_may_be_named_without_regard_to_case_and_with_a_comma_too_many(run):
    told = run({"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "(?i)NOWHERE,"})
    assert told.ignored == []
    assert told.backend.one("GET /work")
    told = run({"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "(?i)WO.K$,"})
    assert told.handed_on
    assert told.backend.spans == []  # nor those within


def test_with_old_names_what_is_personal_stays_here(run):
    personal = {"User-Agent": "canary-agent", "Host": "canary-host"}
    told = run({"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}, [personal])
    assert told.backend.one("GET /work").attributes["http.method"] == "GET"
    assert all(b"canary" not in body for body in told.backend.bodies)
    assert told.backend.one("GET /work").attributes.keys().isdisjoint(PERSONAL)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_bad_endpoint_is_as_none(run, name):
    told = run({"OTEL_EXPORTER_OTLP_ENDPOINT": "", name: "canary:4318"})
    assert told.ignored == [name]
    assert "canary" not in told.output
    assert "otel_sdk" not in told.named("test.counted")[0]["metrics"]


ENDPOINT, OF_TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
KEY = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=canary"}


@pytest.mark.parametrize("exporter", ["otlp", "compact", "OTLP_proto_http", None])
@pytest.mark.parametrize(
    "endpoints",
    [{ENDPOINT: "https//canary/otlp"}, {ENDPOINT: "", OF_TRACES: "https//canary/otlp"}, {OF_TRACES: "https//canary"}],
)
def test_what_is_for_a_bad_endpoint_is_sent_nowhere_else(run, exporter, endpoints):
    # Without its own, the one for all is the backend's: the headers may be for the bad one.
    told = run({**endpoints, **KEY, **({"OTEL_TRACES_EXPORTER": exporter} if exporter else {})})
    assert told.ignored == [OF_TRACES if OF_TRACES in endpoints else ENDPOINT]
    assert "canary" not in told.output
    assert "otel_sdk" not in told.named("test.counted")[0]["metrics"]
    assert told.backend.requests == 0


@pytest.mark.parametrize(
    ("names", "left"), [("otlp", "none"), ("console,otlp,compact", "console"), ("none", "none"), ("console", "console")]
)
def test_beside_a_bad_endpoint_the_other_exporters_count(names, left):
    environ = {ENDPOINT: "canary", "OTEL_TRACES_EXPORTER": names}
    assert [problem.variable for problem in prepare(environ)] == [ENDPOINT]
    assert environ["OTEL_TRACES_EXPORTER"] == left
    assert prepare(environ) == []
    assert environ["OTEL_TRACES_EXPORTER"] == left


def test_a_bad_endpoint_that_is_not_for_traces_keeps_none_back(run):
    told = run({ENDPOINT: "canary", OF_TRACES: "{url}/here"})
    assert told.ignored == [ENDPOINT]
    assert set(told.backend.paths) == {"/here"}


def test_pythons_name_for_the_otlp_exporter_means_the_same(run):
    told = run({"OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_EXPORTER_OTLP_TIMEOUT": "250"}, **LATE)
    assert told.ignored == []
    assert told.metric(EXPORTED, error_type="timeout") == 2


def test_of_what_the_distribution_sets_by_itself_nobody_is_warned(monkeypatch):
    set_by_it = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert len(prepare(dict(set_by_it))) == 2
    monkeypatch.setitem(sys.modules, "opentelemetry.distro", types.ModuleType("opentelemetry.distro"))
    environ = dict(set_by_it)
    assert prepare(environ) == []
    assert not environ.keys() & set_by_it.keys()
    assert len(prepare({**set_by_it, "OTEL_METRICS_EXPORTER": "console"})) == 1


@pytest.mark.parametrize(
    ("sampler", "argument", "kept"),
    [
        ("traceidratio", "0.25", True),
        ("traceidratio", " 1e-3 ", True),
        ("parentbased_traceidratio", "1", True),
        ("TraceIdRatio", "2", False),
        ("traceidratio", "-0.1", False),
        ("traceidratio", "nan", False),
        ("traceidratio", "inf", False),
        ("traceidratio", "0,5", False),
        ("parentbased_traceidratio", "canary", False),
        ("always_on", "0.25", False),
        (None, "0.25", False),
        ("parentbased_always_on", "canary", False),
    ],
)
def test_an_argument_counts_for_the_samplers_that_take_one(sampler, argument, kept):
    environ = {"OTEL_TRACES_SAMPLER_ARG": argument, **({"OTEL_TRACES_SAMPLER": sampler} if sampler else {})}
    problems = prepare(environ)
    assert [problem.variable for problem in problems] == [] if kept else ["OTEL_TRACES_SAMPLER_ARG"]
    assert not any(argument in problem.reason for problem in problems)
    assert environ.get("OTEL_TRACES_SAMPLER_ARG") == (argument.strip() if kept else None)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("value", ["", "  ", "\t"])
def test_an_empty_value_is_none(name, value):
    environ = {name: value}
    assert prepare(environ) == []
    assert environ.get(name) == BY_NAME[name].ours


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("OTEL_SDK_DISABLED", "True", "true"),
        ("OTEL_SERVICE_NAME", " Parcel Service ", "Parcel Service"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b=c;d, ü=%C3%BC,,e=", "a=b=c;d,ü=%C3%BC,e="),
        ("OTEL_PROPAGATORS", "BAGGAGE, tracecontext,baggage,", "baggage,tracecontext"),
        ("OTEL_PROPAGATORS", " , ", None),
        ("OTEL_TRACES_EXPORTER", "COMPACT,Console", "compact,console"),
        ("OTEL_TRACES_EXPORTER", "otlp_proto_http, OTLP", "otlp"),
        ("OTEL_METRICS_EXPORTER", "Prometheus,none", "prometheus,none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "HTTP://[::1]:4318/", "HTTP://[::1]:4318/"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:pa%20ss@host_name/a/b", "https://user:pa%20ss@host_name/a/b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic YTpi=,a=,,", "Authorization=Basic YTpi=,a="),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", str(DAY_MS)),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", " 0010 ", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "1"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0", str(DAY_MS)),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "0", "0"),
        *(("OTEL_TRACES_SAMPLER", name.upper(), name) for name in SAMPLERS),
    ],
)
def test_a_good_value_is_written_as_the_sdk_knows_it(name, value, read):
    environ = {name: value}
    assert prepare(environ) == []
    assert environ.get(name) == read


def test_a_small_queue_makes_small_batches():
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "5"}
    assert prepare(environ) == []
    assert environ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == "5"
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6"}
    assert prepare(environ) == [Ignored("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "above OTEL_BSP_MAX_QUEUE_SIZE")]
    assert environ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == "5"


@pytest.mark.parametrize(
    ("value", "wanted"), [(None, True), ("", True), ("otlp", True), ("none", False), (" NONE,", False)]
)
def test_metrics_are_measured_unless_none_are_wanted(value, wanted):
    assert measures({} if value is None else {"OTEL_METRICS_EXPORTER": value}) is wanted


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": " parcels "}, "parcels"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=a, service.name = par%20cels ,a=b"}, "par cels"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=first,service.name=last"}, "last"),
        ({"OTEL_SERVICE_NAME": "parcels", "OTEL_RESOURCE_ATTRIBUTES": "service.name=lost"}, "parcels"),
        ({"OTEL_SERVICE_NAME": " ", "OTEL_RESOURCE_ATTRIBUTES": "service.name=parcels"}, "parcels"),
        ({"OTEL_SERVICE_NAME": "\udcff", "OTEL_RESOURCE_ATTRIBUTES": "service.name=parcels"}, "parcels"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=parcels,canary"}, None),  # ignored as a whole
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=\udcff"}, None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name="}, None),
    ],
)
def test_the_environment_names_the_service_as_the_specification_has_it(environ, name):
    assert service_name(environ) == name
    prepare(environ)
    assert service_name(environ) == name
