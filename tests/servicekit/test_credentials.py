"""A service's own tokens: had in time, kept while auth-service is away, and forgotten when they are refused."""

import base64
import concurrent.futures
import threading
import time

import pytest
from structlog.testing import capture_logs
from werkzeug import Response

from servicekit.calls.client import ServiceClient
from servicekit.identity.credentials import ServiceTokens
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer
from servicekit.web.errors import DependencyUnavailable

TTL = 3600


class Issuer:
    """auth-service: gives `token-1`, `token-2`, ..."""

    def __init__(self, server):
        self.server = server
        self.status = 200
        self.answer = None
        self.delay = 0
        self.given = 0
        server.expect_request("/internal/token", method="POST").respond_with_handler(self)

    def __call__(self, _request):
        time.sleep(self.delay)
        if self.status != 200:
            return Response("{}", self.status, mimetype="application/json")
        self.given += 1
        if self.answer is not None:
            return Response(self.answer, 200, mimetype="application/json")
        text = f'{{"access_token": "token-{self.given}", "token_type": "Bearer", "expires_in": {TTL}}}'
        return Response(text, 200, mimetype="application/json")


@pytest.fixture
def issuer(peer):
    return Issuer(peer())


@pytest.fixture
def tokens(issuer, tmp_path, clock):
    (tmp_path / "secret").write_text("s: €cret\n")
    client = ServiceClient("auth-service", issuer.server.root, Metrics(), Tracer(), timeout_seconds=5.0)
    yield ServiceTokens(client, "caller", tmp_path / "secret", "callee", clock, path="/internal/token")
    client.close()


def _no_token(tokens):
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        tokens.token()
    return True


def test_a_token_is_fetched_once_with_the_clients_secret(tokens, issuer):
    assert [tokens.token() for _ in range(3)] == ["token-1"] * 3
    (request, _), *others = issuer.server.log
    assert not others
    assert request.get_json() == {"grant_type": "client_credentials", "audience": "callee"}
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode() == "caller:s: €cret"
    assert request.headers["traceparent"].endswith("-00")  # no trace shows it


def test_it_is_there_before_it_is_needed(tokens, issuer):
    tokens.task().run_once()
    assert issuer.given == 1
    tokens.token()
    assert issuer.given == 1


def test_it_is_renewed_long_before_it_expires(tokens, issuer, clock):
    task = tokens.task()
    task.run_once()
    clock.now += TTL / 6 - 1
    task.run_once()
    assert tokens.token() == "token-1"
    clock.now += 2
    task.run_once()
    assert tokens.token() == "token-2"


def test_a_dead_auth_service_is_not_missed_for_five_sixths_of_its_life(tokens, issuer, clock):
    task = tokens.task()
    task.run_once()
    issuer.server.stop()
    clock.now += TTL / 6
    for _ in range(500):
        clock.now += 5.9  # to some seconds before its end
        task.run_once()
        assert tokens.token() == "token-1"
    clock.now += TTL / 6
    assert _no_token(tokens)


def test_an_expired_token_is_not_used_though_nobody_renewed_it(tokens, issuer, clock):
    tokens.token()
    clock.now += TTL - 4
    assert tokens.token() == "token-2"


def test_a_refused_token_is_forgotten_and_a_newer_one_is_not(tokens, issuer):
    first = tokens.token()
    tokens.refused(first)
    second = tokens.token()
    tokens.refused(first)  # somebody else was slower to notice
    assert (first, second, tokens.token()) == ("token-1", "token-2", "token-2")


def test_after_a_failure_nobody_is_asked_for_a_second(tokens, issuer, clock):
    issuer.status = 503
    assert _no_token(tokens)
    asked = len(issuer.server.log)
    assert _no_token(tokens)
    assert len(issuer.server.log) == asked
    issuer.status = 200
    clock.now += 1
    assert tokens.token() == "token-1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
def test_a_refusal_is_no_token(tokens, issuer, status):
    issuer.status = status
    assert _no_token(tokens)


@pytest.mark.parametrize(
    "answer", ["", "[]", "null", "{}", '{"access_token": "x"}', '{"access_token": 1, "expires_in": "x"}']
)
def test_an_answer_without_a_token_is_none(tokens, issuer, answer):
    issuer.answer = answer
    assert _no_token(tokens)


def test_without_its_secret_it_has_none(tokens, issuer, tmp_path, clock):
    (tmp_path / "secret").unlink()
    assert _no_token(tokens)
    (tmp_path / "secret").write_text("back")
    clock.now += 1
    assert tokens.token() == "token-1"


def test_an_outage_is_logged_once(tokens, issuer, clock):
    task = tokens.task()
    issuer.status = 503
    with capture_logs() as events:
        for _ in range(5):
            task.run_once()
            clock.now += 10
        issuer.status = 200
        task.run_once()
        issuer.status = 503
        clock.now += TTL
        task.run_once()
    assert [event["event"] for event in events] == ["service_token.unavailable"] * 2
    assert events[0]["audience"] == "callee"


def test_many_threads_fetch_one_token_between_them(tokens, issuer):
    issuer.delay = 0.1
    gate = threading.Barrier(16)

    def ask(_):
        gate.wait(5)
        return tokens.token()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {"token-1"}
    assert issuer.given == 1


class Callee:
    """A service that takes some tokens, and says of others what servicekit says."""

    def __init__(self, server, taken):
        self.taken = taken
        self.seen = []
        self.kind = "unauthenticated"
        server.expect_request("/things/1").respond_with_handler(self)

    def __call__(self, request):
        self.seen.append(request.headers["Authorization"])
        if self.seen[-1].removeprefix("Bearer ") in self.taken:
            return Response("{}", 200, mimetype="application/json")
        return Response(f'{{"type": "urn:sample:problem:{self.kind}"}}', 401, mimetype="application/json")


@pytest.fixture
def call(peer, tokens):
    """`call("token-1")`: a callee that takes these tokens only, and how to call it."""
    clients = []

    def start(*taken):
        server = peer()
        callee = Callee(server, taken)
        client = ServiceClient("callee", server.root, Metrics(), Tracer(), timeout_seconds=1, credential=tokens)
        clients.append(client)
        callee.call = lambda: client.get("/things/{thing_id}", thing_id=1)
        return callee

    yield start
    for client in clients:
        client.close()


def test_each_call_carries_the_token(call):
    callee = call("token-1")
    assert [callee.call().status for _ in range(2)] == [200, 200]
    assert callee.seen == ["Bearer token-1"] * 2


def test_a_token_whose_key_was_withdrawn_is_replaced_at_once(call):
    callee = call("token-2")
    assert callee.call().status == 200
    assert callee.seen == ["Bearer token-1", "Bearer token-2"]


def test_a_callee_that_takes_no_token_counts_as_unavailable(call):
    callee = call()
    with pytest.raises(DependencyUnavailable, match="callee"):
        callee.call()
    assert len(callee.seen) == 2


def test_a_401_about_something_else_is_an_answer(call):
    callee = call()
    callee.kind = "bad-credentials"
    assert callee.call().status == 401
    assert callee.seen == ["Bearer token-1"]


def test_without_a_token_nobody_is_called(call, issuer):
    issuer.status = 503
    callee = call("token-1")
    with pytest.raises(DependencyUnavailable, match="auth-service"):
        callee.call()
    assert callee.seen == []
