"""What a Service makes of an app, its own or somebody else's."""

import json
import os
import subprocess
import sys

import pytest
from flask import Blueprint, Flask, abort
from structlog.testing import capture_logs

from servicekit.identity import auth
from servicekit.service import Application, Authority, Service
from servicekit.web.errors import DependencyUnavailable, Problem, is_problem
from tests.fixtures.database import PROJECT
from tests.fixtures.otlp import values
from tests.servicekit.sample import sample_app

PARCELS = Application("parcels", authority=Authority("signer", login="get one from the desk"))


class ParcelLost(Exception):  # noqa: N818
    pass


@pytest.fixture
def kit():
    return Service("parcel-service", application=PARCELS)


@pytest.fixture
def app():
    """An app as somebody else writes it, with errors of its own."""
    app = Flask("theirs")

    @app.get("/parcels/<name>")
    def parcel(name):
        return f"<p>{name}</p>"

    @app.get("/fails/<name>")
    def fail(name):
        raise RuntimeError(name)

    @app.errorhandler(404)
    def not_found(_error):
        return "nothing here", 404

    return app


def test_an_app_of_ones_own_answers_as_before(serve, kit, app):
    kit.instrument(app)
    client = serve(app)
    answer = client.get("/parcels/7", headers={"Host": "parcels.example.org"})
    assert (answer.text, answer.headers["Content-Type"]) == ("<p>7</p>", "text/html; charset=utf-8")
    assert (client.get("/nothing").status_code, client.get("/nothing").text) == (404, "nothing here")
    assert client.post("/parcels/7").status_code == 405
    assert "text/html" in client.post("/parcels/7").headers["Content-Type"]


def test_an_app_of_ones_own_is_measured_logged_and_asked_for_its_health(serve, kit, app):
    kit.instrument(app)
    client = serve(app)
    with capture_logs() as events:
        answer = client.get("/parcels/canary")
    [event] = events
    assert (event["event"], event["http_route"], event["status"]) == ("request.completed", "/parcels/{name}", 200)
    assert answer.headers["traceresponse"]
    labels = {"http_request_method": "GET", "http_route": "/parcels/{name}", "http_response_status_code": "200"}
    assert client.metric("http_server_request_duration_seconds_count", **labels) == 1
    assert client.metric("http_server_active_requests") == 1  # the one that asks
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert "canary" not in client.get("/metrics").text + str(events)


@pytest.mark.parametrize("recorded", [True, False])
def test_an_answer_of_middleware_that_was_there_before_is_measured_and_logged(
    serve, otel, collector, kit, app, recorded
):
    def answering(inner):
        def serve(environ, start_response):
            if environ["PATH_INFO"] != "/canary":
                return inner(dict(environ), start_response)
            start_response("418 I'M A TEAPOT", [("Content-Type", "text/plain")])
            return [b"short and stout"]

        return serve

    if recorded:
        otel.to(collector.endpoint)
    app.wsgi_app = answering(app.wsgi_app)
    kit.instrument(app)
    client = serve(app)
    with capture_logs() as events:
        assert (client.get("/canary").text, client.get("/parcels/7").text) == ("short and stout", "<p>7</p>")
    assert [(event["http_route"], event["status"]) for event in events] == [
        ("unmatched", 418),
        ("/parcels/{name}", 200),
    ]
    assert client.metric("http_server_active_requests") == 1


@pytest.mark.parametrize("own", [True, False])
def test_an_exception_is_one_event_of_its_span(serve, exported, kit, app, own):
    if own:
        kit.instrument(app)
    else:
        routes = Blueprint("failing", __name__)
        routes.get("/fails/<name>")(app.view_functions["fail"])
        app = sample_app(extra=[routes])
    serve(app).get("/fails/canary")
    [event] = exported.one("GET /fails/{name}").events
    assert values(event.attributes)["exception.type"] == "RuntimeError"


def test_an_unexpected_error_in_an_app_of_ones_own_is_logged_without_path_and_message(serve, kit, app):
    kit.instrument(app)
    with capture_logs() as events:
        answer = serve(app).get("/fails/canary")
    assert answer.status_code == 500
    assert [event["event"] for event in events] == ["request.failed", "request.completed"]
    assert isinstance(events[0].pop("exc_info")[1], RuntimeError)  # which `describe_exception` cuts
    assert "canary" not in str(events)


def test_what_it_needs_to_be_ready_may_be_named_later(serve, kit, app):
    kit.instrument(app)
    client = serve(app)
    missing = ["depot"]

    @kit.ready_when
    def depot():
        if missing:
            raise DependencyUnavailable(missing[0])

    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:parcels:problem:not-ready"
    assert answer.json()["detail"].startswith("depot")
    missing.clear()
    assert client.get("/readyz").ok


@pytest.fixture
def made(serve, kit, signer):
    """A client of an app that the kit makes."""
    routes = Blueprint("parcels", __name__)
    keys = type("Keys", (), {"key": lambda _self, kid: signer.key.public_key() if kid == signer.kid else None})()
    settings = type("Settings", (), {"token_issuer": "signer", "token_audience": "parcels"})()
    authenticator = kit.authenticator(keys, settings)

    @routes.get("/parcels/lost")
    def lost():
        raise ParcelLost("It fell off the lorry.")

    @routes.get("/parcels/mine")
    @authenticator.required
    def mine():
        return {"user": auth.principal().user_id}

    @routes.get("/parcels/fails")
    def fail():
        raise RuntimeError

    @routes.get("/parcels/gone")
    def gone():
        raise DependencyUnavailable("depot")

    @routes.get("/parcels/aborted")
    def aborted():
        abort(418)

    errors = {**auth.ERRORS, ParcelLost: Problem(401, "parcel-lost", "Lost", challenge="Basic")}
    return serve(kit.app(kit.api("For tests."), routes, prefix="parcels", errors=errors))


def test_errors_and_challenges_name_the_application(made):
    problems = {
        path: (answer.json()["type"], answer.json()["title"], answer.json()["detail"])
        for path in ("lost", "mine", "fails", "gone", "aborted", "nothing")
        for answer in [made.get(f"/parcels/{path}")]
    }
    assert problems.pop("aborted")[0] == "urn:parcels:problem:im-a-teapot"
    assert problems.pop("nothing")[0] == "urn:parcels:problem:not-found"
    needed = "This needs a valid bearer token: get one from the desk."
    assert problems.pop("mine") == ("urn:parcels:problem:unauthenticated", "No valid token", needed)
    assert problems.pop("lost") == ("urn:parcels:problem:parcel-lost", "Lost", "It fell off the lorry.")
    kind, title, detail = problems.pop("fails")
    assert (kind, title) == ("urn:parcels:problem:internal-error", "Internal error")
    assert detail.startswith("Something went wrong in the parcels.")
    assert problems.pop("gone")[:2] == (
        "urn:parcels:problem:dependency-unavailable",
        "A part of the parcels is unavailable",
    )
    assert made.get("/parcels/mine").headers["WWW-Authenticate"] == 'Bearer realm="parcels"'
    assert made.get("/parcels/lost").headers["WWW-Authenticate"] == 'Basic realm="parcels"'


def test_a_token_of_the_applications_authority_is_taken(made, signer):
    token = signer.token(7, iss="signer", aud="parcels")
    assert made.get("/parcels/mine", token).json() == {"user": 7}
    assert made.get("/parcels/mine", signer.token(7)).status_code == 401


def test_an_application_without_an_authority_has_no_tokens():
    kit = Service("alone")
    with pytest.raises(ValueError, match="alone has no authority"):
        kit.authenticator(None, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"type": "urn:parcels:problem:unauthenticated"}, True),
        ({"type": "urn:a:b:problem:unauthenticated"}, True),
        ({"type": "urn:parcels:problem:forbidden"}, False),
        ({"type": "https://parcels.example/:problem:unauthenticated"}, False),
        ({"type": 7}, False),
        ({}, False),
        (["type"], False),
        (None, False),
    ],
)
def test_anothers_problem_is_known_by_its_kind(body, expected):
    assert is_problem(body, "unauthenticated") is expected


ALONE = """
import contextlib, io, sys
from servicekit.service import Service

out = io.StringIO() if sys.argv[1] == "text" else None
sys.stdout, kept = out, sys.stdout
first = Service("first")
first.log.info("first.said")
second = Service("second")
second.log.info("second.said")
first.log.info("first.said")
import logging
logging.getLogger("some.library").warning("told")
print(second.name, file=sys.stderr)
kept.write(out.getvalue() if out is not None else "")
"""


def said(output, **env):
    """The (service, event) of each line that is written where stdout is such a stream."""
    env = {**os.environ, "PYTHONPATH": str(PROJECT / "services"), **env}
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, output], env=env, capture_output=True, timeout=30, check=True, text=True
    )
    assert "second" in ran.stderr
    return [(line["service"], line["event"]) for line in map(json.loads, ran.stdout.splitlines())]


EVENTS = ["first.said", "second.said", "first.said", "library.logged"]


def test_stdout_may_take_text_alone_and_a_second_service_renames_no_line():
    assert said("text") == [("first", event) for event in EVENTS]


def test_there_need_be_no_stdout():
    assert said("none") == []


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=a,service.name=par%20cels"}, "par cels"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=lost", "OTEL_SERVICE_NAME": "parcels"}, "parcels"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name="}, "first"),
    ],
)
def test_the_environment_names_the_lines(env, name):
    assert said("text", **env) == [(name, event) for event in EVENTS]


@pytest.mark.parametrize(("given", "name"), [("service.name=parcels", "parcels"), ("service.name=", "alone")])
def test_the_environments_name_is_in_the_spans_too(otel, collector, given, name):
    otel.to(collector.endpoint, resource_attributes=given)
    with Service("alone").tracer.root("work", {}):
        pass
    assert collector.one("work").service == name
