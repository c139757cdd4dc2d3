"""The canary in local mode, and that it would be found."""

import pytest
from flask import Blueprint, request

import shop
from servicekit.telemetry import tracing
from servicekit.telemetry.exporter import Privacy
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from tests.fixtures.services import eventually
from tests.servicekit.sample import sample_app
from tests.telemetry.canary_tests import *  # noqa: F403
from tests.telemetry.marks import Marks


@pytest.mark.parametrize(
    "doctored",
    [
        '{{"event":"login.rejected","username":"{}"}}',
        '{{"key":"url.query","value":"q={}"}}',
        'logins_total{{user="x{}y"}} 1.0',
        "DETAIL:  Key (lower(username))=({}) already exists.",
        "%2F{}",
    ],
)
def test_a_mark_is_found_wherever_it_is_and_in_whatever_case(doctored):
    marks = Marks()
    mark = marks("password")
    for text in (mark, mark.upper(), mark[:16]):
        assert marks.found_in(doctored.format(text))
    assert not marks.found_in(doctored.format("harmless"))


def test_a_found_mark_tells_where_it_was_put():
    marks = Marks()
    marks("password")
    cookie = marks("cookie")
    assert {place for place, _ in marks.found_in(f"Cookie: {cookie}")} == {"cookie"}
    marks.also("eyJhbGciOi", "token")
    assert {place for place, _ in marks.found_in("Bearer eyJhbGciOi.x.y")} == {"token"}


def nosy():
    """What a library might come to do: record the request as the client wrote it."""
    hooks = Blueprint("nosy", __name__)

    @hooks.before_app_request
    def record():
        tracing.describe(attributes={"url.full": request.url, "user_agent.original": request.user_agent.string})

    return hooks


@pytest.mark.parametrize(("redacted", "found"), [(True, set()), (False, {"path", "query", "user agent"})])
def test_with_redaction_taken_out_a_request_s_own_words_are_found(serve, exported, monkeypatch, redacted, found):
    if not redacted:
        monkeypatch.setattr(Privacy, "cut", lambda _self, span: span)
    marks = Marks()
    metrics = Metrics()
    telemetry = Telemetry("sample", metrics.registry, resource=shop.RESOURCE, attributes=shop.ATTRIBUTES)
    client = serve(sample_app(metrics=metrics, telemetry=telemetry, extra=[nosy()]))
    client.get(f"/{marks('path')}?q={marks('query')}", headers={"User-Agent": marks("user agent")})
    eventually(lambda: exported.spans)
    sent = b"".join(exported.bodies).decode(errors="replace")
    assert {place for place, _ in marks.found_in(sent)} == found
