import base64
import concurrent.futures
import hashlib
import hmac
import json
import threading
import time
from types import SimpleNamespace

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug import Response

from servicekit.calls.client import ServiceClient
from servicekit.config import TokenSettings
from servicekit.identity import auth
from servicekit.identity.auth import Authenticator, JwksClient
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer
from tests.fixtures.services import Signer, eventually
from tests.servicekit.sample import sample_app

KEYS = "/auth/.well-known/jwks.json"
TOKENS = TokenSettings(token_issuer="auth-service", token_audience="shop")
OTHERS_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def client_of(serve, clock):
    """A service that takes tokens which the auth-service at this root signed."""

    def start(root, timeout_seconds=5.0):
        metrics = Metrics()
        asking = ServiceClient("auth-service", root, metrics, Tracer(), timeout_seconds=timeout_seconds)
        keys = JwksClient(asking, clock, path=KEYS)
        app = sample_app(metrics=metrics, auth=Authenticator(keys, TOKENS), error_table=auth.ERRORS)
        return serve(app)

    return start


@pytest.fixture
def client(client_of, auth_peer):
    return client_of(auth_peer.root)


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed_with_the_public_key(signer):
    """The classic confusion: the public key, which everybody has, used as an HMAC secret."""
    secret = signer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _, payload, _ = signer.token().split(".")
    text = f"{_b64(json.dumps({'alg': 'HS256', 'typ': 'JWT', 'kid': signer.kid}).encode())}.{payload}"
    return f"{text}.{_b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def _header(signer, **members):
    _, payload, signature = signer.token().split(".")
    return f"{_b64(json.dumps({'alg': 'RS256', 'kid': signer.kid, **members}).encode())}.{payload}.{signature}"


def _nested(signer):
    _, payload, signature = signer.token().split(".")
    return f"{_b64(b'[' * 2500)}.{payload}.{signature}"


BAD = {
    "garbage": lambda _: "garbage",
    "dots": lambda _: "..",
    "three parts of garbage": lambda _: "a.b.c",
    "no ASCII": lambda s: s.token() + "\xe4",
    "expired": lambda s: s.token(exp=int(time.time()) - 1),
    "not yet valid": lambda s: s.token(nbf=int(time.time()) + 600),
    "issued tomorrow": lambda s: s.token(iat=int(time.time()) + 86400),
    "expiry is text": lambda s: s.token(exp="tomorrow"),
    "alg none": lambda s: _header(s, alg="none").rpartition(".")[0] + ".",
    "alg None with a signature": lambda s: _header(s, alg="None"),
    "alg RS512": lambda s: s.token(algorithm="RS512"),
    "HS256 with the public key": _signed_with_the_public_key,
    "another key": lambda s: s.token(key=OTHERS_KEY),
    "own key in the header": lambda s: _header(s, jwk={"kty": "RSA"}, jku="http://127.0.0.1:1/keys"),
    "changed payload": lambda s: ".".join([s.token().split(".")[0], _b64(b'{"sub": "1"}'), s.token().split(".")[2]]),
    "signature cut off": lambda s: s.token().rpartition(".")[0] + ".",
    "wrong audience": lambda s: s.token(aud="bank"),
    "wrong issuer": lambda s: s.token(iss="bank"),
    "no sub": lambda s: s.token(sub=None),
    "sub is no number": lambda s: s.token(sub="ada"),
    "no exp": lambda s: s.token(exp=None),
    "unknown kid": lambda s: s.token(kid="unknown"),
    "kid is a list": lambda s: _header(s, kid=["test-key"]),
    "kid is null": lambda s: _header(s, kid=None),
    "header is deeply nested": _nested,
    "header is a list": lambda s: _b64(b"[]") + s.token()[s.token().index(".") :],
    "huge": lambda s: s.token(padding="x" * 5000),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_401_the_same_for_all(client, signer, kind):
    nothing = client.get("/whoami")
    response = client.get("/whoami", headers={"Authorization": f"Bearer {BAD[kind](signer)}".encode("latin-1")})
    assert response.status_code == nothing.status_code == 401
    assert response.headers["WWW-Authenticate"] == nothing.headers["WWW-Authenticate"] == 'Bearer realm="sample"'
    assert response.headers["Content-Type"] == "application/problem+json"
    assert {**response.json(), "trace_id": ""} == {**nothing.json(), "trace_id": ""}


@pytest.mark.parametrize("prefix", ["", "Bearer", "Bearer ", "Basic ", "Token ", "Bearer Bearer "])
def test_what_is_no_bearer_token_is_401(client, signer, prefix):
    token = signer.token() if prefix not in {"", "Bearer", "Bearer "} else ""
    assert client.get("/whoami", headers={"Authorization": prefix + token}).status_code == 401


def test_a_valid_token_says_who_asks(client, signer):
    expiry = int(time.time()) + 60
    answer = client.get("/whoami", signer.token(7, "admin", exp=expiry))
    assert answer.json() == {"user_id": 7, "role": "admin", "expires_at": expiry}


def test_the_scheme_is_taken_in_any_case(client, signer):
    assert client.get("/whoami", headers={"Authorization": f"bearer {signer.token()}"}).status_code == 200


def test_keys_are_fetched_once(client, signer, auth_peer):
    assert [client.get("/whoami", signer.token(n)).status_code for n in range(1, 6)] == [200] * 5
    assert len(auth_peer.log) == 1


def test_unknown_keys_are_asked_for_at_most_every_10_seconds(client, signer, auth_peer, clock):
    client.get("/whoami", signer.token())
    for n in range(20):
        assert client.get("/whoami", signer.token(kid=f"guess-{n}")).status_code == 401
    clock.now += 9.9
    client.get("/whoami", signer.token(kid="guess"))
    assert len(auth_peer.log) == 1
    clock.now += 0.2
    client.get("/whoami", signer.token(kid="guess"))
    client.get("/whoami", signer.token(kid="guess"))
    assert len(auth_peer.log) == 2


def test_a_token_of_a_new_key_is_valid_when_the_key_is_published(client, signer, auth_peer, clock):
    client.get("/whoami", signer.token())
    new = Signer()
    new.kid = "new-key"
    auth_peer.clear()
    auth_peer.expect_request("/auth/.well-known/jwks.json").respond_with_json(
        {"keys": [*signer.jwks["keys"], *new.jwks["keys"]]}
    )
    clock.now += 10
    assert client.get("/whoami", new.token()).status_code == 200
    assert client.get("/whoami", signer.token()).status_code == 200


def test_known_keys_go_on_working_while_auth_is_down(client, signer, auth_peer, clock):
    client.get("/whoami", signer.token())
    auth_peer.stop()
    clock.now += 60
    unknown = client.get("/whoami", signer.token(kid="unknown"))
    assert unknown.status_code == 503  # it may be a new key's: who can tell, with auth down?
    assert client.get("/whoami", signer.token()).status_code == 200


def test_without_any_key_and_without_auth_it_is_503_until_auth_is_there(client, clock, signer, auth_peer):
    port = auth_peer.port
    auth_peer.stop()
    response = client.get("/whoami", signer.token())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "auth-service" in response.json()["detail"]
    assert client.get("/whoami").status_code == 401  # nothing to verify
    auth_peer.port = port
    auth_peer.start()
    assert client.get("/whoami", signer.token()).status_code == 503  # at once: no queue before an auth that hangs
    clock.now += 1
    assert client.get("/whoami", signer.token()).status_code == 200


def test_requests_do_not_queue_up_for_an_auth_service_that_hangs(client_of, peer, signer):
    release = threading.Event()
    server = peer()
    server.expect_request("/auth/.well-known/jwks.json").respond_with_handler(lambda _: release.wait(5) and Response())
    client = client_of(server.root, timeout_seconds=0.3)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/whoami", signer.token()), range(8)))
    seconds = time.monotonic() - started
    release.set()
    assert {answer.status_code for answer in answers} == {503}
    assert seconds < 8 * 0.3  # one waited for its timeout of 0.3 s, the others learned from it
    assert client.get("/whoami", signer.token()).status_code == 503  # nobody is asked within a second
    eventually(lambda: len(server.log) == 1)


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": [{"kty": "RSA"}]}, {"keys": [{"kty": "new", "kid": "a"}]}])
def test_a_jwks_without_a_usable_key_is_503_and_no_fault_of_the_token(client_of, peer, signer, jwks):
    server = peer()
    server.expect_request("/auth/.well-known/jwks.json").respond_with_json(jwks)
    assert client_of(server.root).get("/whoami", signer.token()).status_code == 503


PATH = "/auth/.well-known/jwks.json"
UNUSABLE = {
    "no object": "[]", "null": "null", "text": '"keys"', "no JSON": "{", "nothing": "", "no keys": "{}",
    "none": '{"keys": []}', "keys is an object": '{"keys": {"kid": "test-key"}}', "keys is null": '{"keys": null}',
    "keys that are none": '{"keys": [7, null, [], "test-key", {}, {"kty": "RSA"}]}',
    "a key without n": '{"keys": [{"kty": "RSA", "kid": "test-key", "e": "AQAB"}]}',
    "n is a number": '{"keys": [{"kty": "RSA", "kid": "test-key", "n": 7, "e": "AQAB"}]}',
    "n is no base64": '{"keys": [{"kty": "RSA", "kid": "test-key", "n": "\u00e4!", "e": "AQAB"}]}',
    "n is 0": '{"keys": [{"kty": "RSA", "kid": "test-key", "n": "AA", "e": "AQAB"}]}',
    "e is null": '{"keys": [{"kty": "RSA", "kid": "test-key", "n": "AQAB", "e": null}]}',
    "kty is a list": '{"keys": [{"kty": ["RSA"], "kid": "test-key", "n": "AQAB", "e": "AQAB"}]}',
    "a secret": '{"keys": [{"kty": "oct", "kid": "test-key", "k": "AAAA"}]}',
}  # fmt: skip


@pytest.fixture
def ageing(auth_peer, clock, serve):
    """A service whose keys age as the test says; `refresh()` is a look of the background task."""
    client = ServiceClient("auth-service", auth_peer.root, Metrics(), Tracer(), timeout_seconds=5.0)
    keys = JwksClient(client, clock, kept_seconds=600, path=KEYS)
    app = sample_app(auth=Authenticator(keys, TOKENS), error_table=auth.ERRORS)
    task = keys.task()

    def publish(body, status=200):
        auth_peer.clear()
        text = body if isinstance(body, str) else json.dumps(body)
        auth_peer.expect_request(PATH).respond_with_data(text, status=status, content_type="application/json")

    def refresh(seconds=0):
        clock.now += seconds
        task.run_once()

    return SimpleNamespace(client=serve(app), refresh=refresh, publish=publish, keys=keys)


def _statuses(ageing, *tokens):
    return [ageing.client.get("/whoami", token).status_code for token in tokens]


@pytest.fixture(scope="module")
def new():
    made = Signer()
    made.kid = "new-key"
    return made


def test_a_withdrawn_key_is_refused_after_the_next_look_though_its_token_is_known(ageing, signer, new):
    token = signer.token()
    assert _statuses(ageing, token, token) == [200, 200]
    ageing.publish(new.jwks)
    ageing.refresh(18.9)
    assert _statuses(ageing, token) == [200]
    ageing.refresh(0.2)
    assert _statuses(ageing, token, signer.token(), new.token()) == [401, 401, 200]


def test_keys_are_fetched_beside_the_requests_and_not_by_them(ageing, signer, auth_peer):
    token = signer.token()
    ageing.refresh()
    for _ in range(9):
        ageing.refresh(10)
        _statuses(ageing, token)
    assert len(auth_peer.log) == 5
    assert {request.headers["traceparent"][-2:] for request, _ in auth_peer.log} <= {"00"}


def test_where_the_background_did_not_get_to_it_a_request_does(ageing, signer, new, clock):
    """A process may have been frozen."""
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    ageing.publish(new.jwks)
    clock.now += 61
    assert _statuses(ageing, token) == [401]


def test_while_auth_is_dead_keys_count_for_the_time_that_was_stated_and_then_it_is_503(ageing, signer, auth_peer):
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    port = auth_peer.port
    auth_peer.stop()
    for _ in range(29):
        ageing.refresh(20)
    assert _statuses(ageing, token, signer.token(2)) == [200, 200]
    ageing.refresh(20)
    answer = ageing.client.get("/whoami", token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    auth_peer.port = port
    auth_peer.start()
    ageing.refresh(20)
    assert _statuses(ageing, token) == [200]


def test_a_key_that_was_withdrawn_while_auth_was_dead_is_refused_when_it_is_back(ageing, signer, new):
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    ageing.publish("", 503)
    ageing.refresh(20)
    assert _statuses(ageing, token) == [200]
    ageing.publish(new.jwks)
    ageing.refresh(20)
    assert _statuses(ageing, token) == [401]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_answer_without_a_usable_key_drops_no_key_and_keeps_none_for_ever(ageing, signer, kind):
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    ageing.publish(UNUSABLE[kind])
    for _ in range(29):
        ageing.refresh(20)
    assert _statuses(ageing, token) == [200]
    ageing.refresh(20)
    assert _statuses(ageing, token) == [503]
    ageing.publish(signer.jwks)
    ageing.refresh(20)
    assert _statuses(ageing, token) == [200]


@pytest.mark.parametrize("status", [201, 301, 401, 404, 500])
def test_neither_does_another_status(ageing, signer, new, status):
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    ageing.publish(new.jwks, status)
    ageing.refresh(20)
    assert _statuses(ageing, token, new.token()) == [200, 503]


def test_one_key_that_is_malformed_costs_the_others_nothing(ageing, signer, new):
    for other in json.loads(UNUSABLE["keys that are none"])["keys"]:
        ageing.publish({"keys": [other, *new.jwks["keys"]]})
        ageing.refresh(20)
        assert _statuses(ageing, new.token(), signer.token()) == [200, 401]


def test_a_key_for_another_use_verifies_nothing(ageing, new, signer):
    (jwk,) = new.jwks["keys"]
    for members in ({"use": "enc"}, {"alg": "RS512"}, {"kid": 7}, {"kid": None}):
        ageing.publish({"keys": [{**jwk, **members}, *signer.jwks["keys"]]})
        ageing.refresh(20)
        assert _statuses(ageing, signer.token(), new.token()) == [200, 401]


def test_a_key_of_the_same_name_with_other_content_does_not_take_the_old_tokens(ageing, signer):
    token = signer.token()
    assert _statuses(ageing, token) == [200]
    other = Signer()
    ageing.publish(other.jwks)
    ageing.refresh(20)
    assert _statuses(ageing, token, other.token()) == [401, 200]


@pytest.fixture
def authenticator(signer):
    """One whose published keys the test decides on."""
    published = {signer.kid: signer.key.public_key()}
    made = Authenticator(SimpleNamespace(key=published.get), TOKENS)
    made.published = published
    return made


@pytest.fixture
def checked(monkeypatch):
    """The tokens whose signatures were checked."""
    tokens = []
    real = jwt.decode
    monkeypatch.setattr(
        jwt, "decode", lambda token, *args, **kwargs: tokens.append(token) or real(token, *args, **kwargs)
    )
    return tokens


def test_a_tokens_signature_is_checked_once(authenticator, signer, checked):
    token, other = signer.token(7), signer.token(8)
    said = [authenticator.verify(token) for _ in range(3)]
    assert (said[0][0].user_id, said) == (7, [said[0]] * 3)
    assert authenticator.verify(other)[0].user_id == 8
    assert checked == [token, other]


def test_a_known_token_is_refused_once_it_has_expired(authenticator, signer, checked):
    token = signer.token(exp=int(time.time()) + 2)
    assert authenticator.verify(token) == authenticator.verify(token)
    assert len(checked) == 1

    def refused():
        try:
            authenticator.verify(token)
        except auth.Unauthenticated:
            return True
        return False

    eventually(refused, 4)


def test_a_known_token_is_refused_when_its_key_is_published_no_more(authenticator, signer):
    token = signer.token()
    authenticator.verify(token)
    key = authenticator.published.pop(signer.kid)
    with pytest.raises(auth.Unauthenticated):
        authenticator.verify(token)
    authenticator.published[signer.kid] = OTHERS_KEY.public_key()
    with pytest.raises(auth.Unauthenticated):
        authenticator.verify(token)
    authenticator.published[signer.kid] = key
    assert authenticator.verify(token)


def test_a_token_that_was_refused_is_not_remembered_and_those_that_are_are_bounded(authenticator, signer, monkeypatch):
    monkeypatch.setattr(auth, "_MOST_VERIFIED", 5)
    for number in range(1, 13):
        authenticator.verify(signer.token(number))
        with pytest.raises(auth.Unauthenticated):
            authenticator.verify(signer.token(number, exp=int(time.time()) - 1))
        assert len(authenticator._verified) <= 5
    assert authenticator.verify(signer.token(1))[0].user_id == 1
