"""GATEWAY_TRACING=module, as far as it goes without nginx's OpenTelemetry module, which only the `-otel` images have.

A stand-in takes the module's place: its variables become maps, and its directives are left out, but what they would be
given is written to the log. The rest is the configuration as Compose renders it, in a real nginx.
"""

import os
import re
import shutil
import subprocess

import pytest
from opentelemetry.trace import StatusCode

from local import nginx
from observability.gateway.line import Line, Vocabulary
from observability.gateway.settings import ROUTES
from observability.gateway.spans import span_of
from servicekit.telemetry.setup import make_resource
from tests.fixtures.gateway import running_gateway
from tests.fixtures.otlp import values
from tests.fixtures.services import eventually
from tests.fixtures.traceparents import INVALID, PARENT, TRACE
from tests.observability.conftest import backends, collector, program, start_collector

__all__ = ["backends", "collector", "program", "start_collector"]

KEEPS_ITS_TRACE_ID = {
    "parent id of zeros",
    "ids in upper case",
    "trace id in upper case",
    "parent id in upper case",
    "flags in upper case",
    "more after version 00",
    "hyphen after version 00",
}
"""Of INVALID, those whose trace id the module takes all the same."""

SPAN = "b7ad6b7169203331"
DIRECTIVE = re.compile(r"^otel_(\w+)\s+(?:(gateway\.\w+)\s+)?([^;{]+);", re.MULTILINE)
COMPOSE = {
    "GATEWAY_TRACING": "module",
    "GATEWAY_OTLP_ENDPOINT": "collector:4317",
    "DEPLOYMENT_ENVIRONMENT": "compose",
}

# What the module's variables are, by its source (trace_context.hpp): of version 00 it takes ids in either case, each by
# itself if it is not all zeros, and ignores what comes after the flags. It also turns them into lower case.
VARIABLES = f"""
map $http_traceparent $otel_inbound {{
    default "";
    "~*^00-(?<otel_t>[0-9a-f]{{32}})-(?<otel_p>[0-9a-f]{{16}})-(?<otel_f>[0-9a-f]{{2}})(?:-|$)"
        "$otel_t-$otel_p-$otel_f";
}}
map $otel_inbound $otel_trace_id {{ default $request_id; "~^(?!0{{32}})(?<otel_i>.{{32}})-" $otel_i; }}
map $otel_inbound $otel_parent_id {{ default ""; "~^.{{32}}-(?!0{{16}})(?<otel_j>.{{16}})-" $otel_j; }}
map $otel_inbound $otel_parent_sampled {{ default 0; "~*[13579bdf]$" 1; }}
map "" $otel_span_id {{ default {SPAN}; }}
"""


def render_for_compose(conf_dir, settings):
    """Render as the image's entrypoint does: each template into conf.d. The upstreams are local mode's."""
    variables = {**nginx.DEFAULTS, **COMPOSE, **settings}
    (conf_dir / "conf.d").mkdir(parents=True, exist_ok=True)
    for folder in ("gateway", "tracing"):
        shutil.copytree(nginx.SOURCE / folder, conf_dir / folder, dirs_exist_ok=True)
    for template in (nginx.SOURCE / "templates").glob("*.template"):
        (conf_dir / "conf.d" / template.stem).write_text(filled(template, variables))
    (conf_dir / "upstreams.conf").write_text(filled(nginx.SOURCE / "local/upstreams.conf.template", variables))
    main = (nginx.SOURCE / "compose/nginx.conf").read_text().replace("/tmp/", "")
    (conf_dir / "nginx.conf").write_text(main)
    return conf_dir / "nginx.conf"


def filled(template, variables):
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: variables[match[1]], template.read_text())


def with_stand_in(conf_dir, settings):
    """The same without the module."""
    conf = render_for_compose(conf_dir, settings)
    (conf_dir / "tracing/main/module.conf").unlink()
    (conf_dir / "conf.d/otel.conf").write_text("")
    module = conf_dir / "tracing/module.conf"
    directives = DIRECTIVE.findall(module.read_text())
    module.write_text(VARIABLES + re.sub(r"(?m)^otel_.*\n", "", module.read_text()))
    given = ",".join(f'"{name or directive}":"{value}"' for directive, name, value in directives if "$" in value)
    gateway = conf_dir / "conf.d/gateway.conf"
    text = gateway.read_text().replace('\'{"timestamp"', f'\'{{"otel":{{{given}}},"timestamp"', 1)
    gateway.write_text(text.replace('"/healthz 200" 0;', '"/healthz 200" 1;'))  # to see its decision
    return conf


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nginx, "render", with_stand_in)
        with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
            yield gateway


def ask(gateway, target="/orders/", *headers, method="GET"):
    """Send a request; its answer, what reached the service, and its line."""
    got = gateway.request(method, target, *headers)
    reached = gateway.reached()
    trace_id, span_id = got.headers["traceresponse"].split("-")[1:3]
    return got, reached[-1] if reached else None, gateway.log_line(trace_id=trace_id, span_id=span_id)


@pytest.mark.parametrize("tracing", ["log", "off", "module"])
def test_composes_configuration_is_valid_and_loads_the_module_in_one_mode_only(tmp_path, nginx_program, tracing):
    conf = render_for_compose(tmp_path, {"GATEWAY_TRACING": tracing})
    tested = subprocess.run([*nginx.command(nginx_program, conf), "-t"], capture_output=True, text=True, check=False)
    if tracing == "module":
        assert "ngx_otel_module.so" in tested.stderr
        assert tested.returncode != 0
    else:
        assert tested.returncode == 0, tested.stderr


def test_what_the_module_takes_literally_is_filled_in(tmp_path):
    render_for_compose(tmp_path, {})
    text = (tmp_path / "conf.d/otel.conf").read_text()
    assert "endpoint collector:4317;" in text
    assert re.search(r"batch_size (\d+);", text)[1] == "64"  # 128 spans of 16 KB took 55 of the container's 64 MB
    assert "otel_resource_attr deployment.environment.name compose;" in text


def test_the_directives_are_those_that_were_seen_to_work(tmp_path):
    text = (nginx.SOURCE / "tracing/module.conf").read_text() + (
        nginx.SOURCE / "templates/otel.conf.template"
    ).read_text()
    assert set(re.findall(r"^otel_\w+", text, re.MULTILINE)) == {
        "otel_exporter",
        "otel_service_name",
        "otel_resource_attr",
        "otel_trace_context",
        "otel_trace",
        "otel_span_name",
        "otel_span_attr",
    }


def test_a_new_trace_is_the_modules(gateway):
    got, received, line = ask(gateway)
    assert received.values("traceparent") == [f"00-{got.trace_id}-{SPAN}-01"] == [got.headers["traceresponse"]]
    assert received.values("tracestate") == []
    assert (line["span_id"], line["parent_span_id"], line["trace_flags"]) == (SPAN, "", "01")
    assert line["otel"]["trace"] == "on"


@pytest.mark.parametrize("wrong", INVALID)
def test_an_invalid_traceparent_brings_no_parent_and_no_decision_and_in_some_forms_its_trace_id(gateway, wrong):
    trace_id = os.urandom(16).hex()
    unsampled = INVALID[wrong].replace("-01", "-00")  # a decision that would show
    inbound = unsampled.replace(TRACE, trace_id).replace(TRACE.upper(), trace_id.upper())
    got, received, line = ask(gateway, "/orders/", f"traceparent: {inbound}", "tracestate: a=1")
    assert (got.trace_id.lower() == trace_id) == (wrong in KEEPS_ITS_TRACE_ID)
    assert received.values("traceparent") == [f"00-{got.trace_id}-{SPAN}-01"] == [got.headers["traceresponse"]]
    assert received.values("tracestate") == []
    assert (line["parent_span_id"], line["trace_flags"]) == ("", "01")
    assert (line["otel"]["trace"], line["otel"]["gateway.parent"]) == ("on", "none")


@pytest.mark.parametrize("version", ["01", "fe"])
def test_a_version_of_the_future_begins_a_new_trace(gateway, version):
    got, received, line = ask(gateway, "/orders/", f"traceparent: {version}-{TRACE}-{PARENT}-00", "tracestate: a=1")
    assert got.trace_id != TRACE
    assert received.values("tracestate") == []
    assert (line["trace_flags"], line["otel"]["gateway.parent"]) == ("01", "none")


def test_the_span_says_whose_child_it_is(gateway):
    trace_id = os.urandom(16).hex()
    assert ask(gateway, "/orders/", f"traceparent: 00-{trace_id}-{PARENT}-01")[2]["otel"]["gateway.parent"] == PARENT
    assert ask(gateway)[2]["otel"]["gateway.parent"] == "none"


@pytest.mark.parametrize(("flags", "sent", "trace"), [("01", "01", "on"), ("00", "00", "off")])
def test_a_parents_decision_is_followed(gateway, flags, sent, trace):
    trace_id = os.urandom(16).hex()
    got, received, line = ask(gateway, "/orders/", f"traceparent: 00-{trace_id}-{PARENT}-{flags}", "tracestate: a=1")
    assert received.values("traceparent") == [f"00-{trace_id}-{SPAN}-{sent}"] == [got.headers["traceresponse"]]
    assert received.values("tracestate") == ["a=1"]
    assert (line["parent_span_id"], line["trace_flags"], line["otel"]["trace"]) == (PARENT, sent, trace)


def test_a_share_of_new_traces_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(nginx, "render", with_stand_in)
    with running_gateway(tmp_path, GATEWAY_SAMPLE_PERCENT="50") as gateway:
        lines = [ask(gateway)[2] for _ in range(60)]
    assert {(line["trace_flags"], line["otel"]["trace"]) for line in lines} == {("01", "on"), ("00", "off")}


def test_good_health_has_no_span_and_bad_has_one(gateway):
    assert ask(gateway, "/healthz")[2]["otel"]["trace"] == "off"
    assert ask(gateway, "/healthz", method="POST")[2]["otel"]["trace"] == "on"
    assert ask(gateway, "/nowhere")[2]["otel"]["trace"] == "on"


REQUESTS = [
    ("POST", "/orders/"),
    ("GET", "/orders/1?token=c4n4ry"),
    ("GET", "/c4n4ry"),
    ("BREW", "/orders/"),
    ("DELETE", "/payments/1"),
    ("GET", "/orders"),
    ("GET", "/users/me"),  # whose service hangs up
]


@pytest.mark.parametrize(("method", "target"), REQUESTS)
def test_through_the_collector_its_span_is_that_of_the_log(gateway, collector, backends, method, target):
    gateway.services["user"].reply = lambda _: None
    _, _, line = ask(gateway, target, method=method)
    given = line["otel"]
    collector.send_spans(as_the_module_sends(line, target, method), service="nginx")
    (sent,) = eventually(backends.spans)
    parsed = Line.model_validate(line)
    expected = span_of(parsed, parsed.recorded(), Vocabulary.of(ROUTES), make_resource("nginx"))
    assert given["trace"] == "on"
    assert (sent.name, values(sent.attributes)) == (expected.name, expected.attributes)
    assert (sent.status.code == 2) == (expected.status.status_code is StatusCode.ERROR)
    assert sent.trace_state == ""
    assert "c4n4ry" not in str(sent)


def as_the_module_sends(line, target, method):
    """A span as the module makes it: old names, the client's text, an attribute twice."""
    attributes = {
        "http.method": "GET" if line["status"] == 404 else method,  # after an error_page
        "http.target": target,
        "http.route": "/",
        "http.scheme": "http",
        "http.flavor": "1.1",
        "http.user_agent": "c4n4ry",
        "http.request_content_length": 0,
        "http.response_content_length": 99,
        "http.status_code": line["status"],
        "net.host.name": "localhost",
        "net.host.port": line["server_port"],
        "net.sock.peer.addr": "127.0.0.1",
        "net.sock.peer.port": 50000,
        **{name: value for name, value in line["otel"].items() if name.startswith("gateway.")},
    }
    return {
        "name": line["otel"]["span_name"],
        "trace_id": os.urandom(16).hex(),
        "attributes": attributes,
        "status": {"code": 2} if line["status"] >= 500 else {},
        "traceState": "a=c4n4ry",
    }
