import base64
import concurrent.futures
import json

import pytest
from structlog.testing import capture_logs
from werkzeug import Response

from servicekit.credentials import ServiceTokens
from servicekit.errors import DependencyUnavailable
from servicekit.http import ServiceClient
from servicekit.metrics import Metrics
from servicekit.tracing import Tracer

SECRET = "order's own: & sécret"
BODIES = ["", "{}", "[]", "7", "null", "{", '{"access_token": "t"}', '{"expires_in": 600}',
          '{"access_token": 7, "expires_in": 600}', '{"access_token": "", "expires_in": 600}',
          '{"access_token": "a\\r\\nX: y", "expires_in": 600}', '{"access_token": "t", "expires_in": "soon"}',
          '{"access_token": "t", "expires_in": true}', '{"access_token": "t", "expires_in": -1}',
          '{"access_token": "t", "expires_in": 1e999}']  # fmt: skip


class Issuer:
    """A stand-in for auth-service: gives token 1, 2, 3 ..., or what the test says."""

    def __init__(self):
        self.asked = []
        self.status = 200
        self.body = None

    def __call__(self, request):
        self.asked.append((request.headers["Authorization"], request.get_json()))
        body = self.body
        if body is None:
            body = json.dumps({"access_token": f"token-{len(self.asked)}", "token_type": "Bearer", "expires_in": 600})
        return Response(body, self.status, mimetype="application/json")


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def issuing(peer, issuer):
    server = peer()
    server.expect_request("/internal/token", method="POST").respond_with_handler(issuer)
    return server


@pytest.fixture
def secret_file(tmp_path):
    file = tmp_path / "order-service"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    return file


@pytest.fixture
def tokens(issuing, secret_file, clock):
    client = ServiceClient("auth-service", issuing.root, Metrics(), Tracer(), timeout_seconds=0.5)
    return ServiceTokens(client, "order-service", secret_file, "payment-service", clock)


def _renew(tokens):
    tokens.task().run_once()


def test_it_asks_as_oauth_wants_it_and_keeps_the_token(tokens, issuer):
    assert [tokens.token() for _ in range(3)] == ["token-1"] * 3
    ((authorization, body),) = issuer.asked
    assert authorization == "Basic " + base64.b64encode(f"order-service:{SECRET}".encode()).decode()
    assert body == {"grant_type": "client_credentials", "audience": "payment-service"}


def test_it_is_renewed_in_the_background_long_before_it_expires(tokens, issuer, clock):
    _renew(tokens)
    clock.now += 99
    _renew(tokens)
    assert len(issuer.asked) == 1
    clock.now += 2
    _renew(tokens)
    assert len(issuer.asked) == 2
    assert tokens.token() == "token-2"


def test_while_auth_is_down_the_token_lasts_until_it_expires_and_then_there_is_none(tokens, issuing, clock):
    tokens.token()
    issuing.stop()
    clock.now += 594
    _renew(tokens)
    assert tokens.token() == "token-1"
    clock.now += 2
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        tokens.token()


def test_when_auth_is_back_there_is_a_token_within_seconds(tokens, issuer, clock):
    issuer.status = 503
    _renew(tokens)
    issuer.status = 200
    with pytest.raises(DependencyUnavailable):
        tokens.token()  # not asked again at once: requests must not queue up before an auth-service that hangs
    assert len(issuer.asked) == 1
    clock.now += 1.1
    assert tokens.token() == "token-2"


def test_many_requests_at_once_ask_once(tokens, issuer):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {one.result() for one in [pool.submit(tokens.token) for _ in range(16)]} == {"token-1"}
    assert len(issuer.asked) == 1


def test_one_that_was_refused_is_forgotten_and_a_newer_one_is_not(tokens):
    old = tokens.token()
    tokens.refused(old)
    assert tokens.token() == "token-2"
    tokens.refused(old)
    assert tokens.token() == "token-2"


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 500])
def test_an_answer_that_gives_none_is_an_outage(tokens, issuer, status):
    issuer.status = status
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        tokens.token()


@pytest.mark.parametrize("body", BODIES)
def test_so_is_an_answer_that_is_not_as_agreed(tokens, issuer, body):
    issuer.body = body
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        tokens.token()


def test_an_outage_is_logged_once(tokens, issuer, clock):
    issuer.status = 503
    with capture_logs() as events:
        for _ in range(3):
            _renew(tokens)
            clock.now += 6
        issuer.status = 200
        _renew(tokens)
        issuer.status = 401
        clock.now += 700
        _renew(tokens)
    said = {"event": "service_token.unavailable", "log_level": "warning", "audience": "payment-service"}
    assert events == [said, said]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secret_that_is_not_there_or_is_no_text_is_an_outage_and_another_one_counts_at_once(
    tokens, secret_file, clock, content
):
    secret_file.unlink()
    if content is not None:
        secret_file.write_bytes(content)
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        tokens.token()
    secret_file.write_text("new")
    clock.now += 2
    assert tokens.token() == "token-1"
