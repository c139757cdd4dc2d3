"""Which error has which status on the wire, and that bad input gets a 4xx that names the field."""

import gzip
import json
import socket

import pytest
from structlog.testing import capture_logs

from servicekit.identity import auth
from servicekit.web.errors import DependencyUnavailable, Problem
from tests.fixtures.services import eventually
from tests.servicekit import sample
from tests.servicekit.sample import sample_app

MEMBERS = {"type", "title", "status", "detail", "trace_id"}


class OwnError(Exception):
    pass


sample.ERRORS.update(
    {
        "dependency": DependencyUnavailable("order-db"),
        "unauthenticated": auth.Unauthenticated(),
        "forbidden": auth.Forbidden(),
        "own": OwnError("the kettle is empty"),
    }
)
TABLE = {
    **auth.ERRORS,
    OwnError: Problem(409, "own", "Own", headers={"X-Own": "yes"}),
}


@pytest.fixture
def client(serve):
    return serve(sample_app(error_table=TABLE))


def _assert_problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) >= MEMBERS
    assert body["status"] == status
    assert body["type"].startswith("urn:sample:problem:")
    assert body["title"]
    assert body["detail"]
    assert body["trace_id"] == response.headers["traceresponse"].split("-")[1]
    return body


@pytest.mark.parametrize(
    ("name", "status", "kind", "headers"),
    [
        ("dependency", 503, "dependency-unavailable", {"Retry-After": "1"}),
        ("unauthenticated", 401, "unauthenticated", {"WWW-Authenticate": 'Bearer realm="sample"'}),
        ("forbidden", 403, "forbidden", {}),
        ("own", 409, "own", {"X-Own": "yes"}),
        ("unexpected", 500, "internal-error", {}),
    ],
)
def test_each_error_of_the_table_has_its_status(client, name, status, kind, headers):
    response = client.get(f"/failures/{name}")
    assert _assert_problem(response, status)["type"] == f"urn:sample:problem:{kind}"
    assert headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 414, 415, 418, 429, 431, 500, 501, 503])
def test_http_errors_are_problems_too(client, status):
    _assert_problem(client.get(f"/aborts/{status}"), status)


def test_an_unexpected_exception_is_logged_and_its_message_stays_inside(client):
    with capture_logs() as events:
        response = client.get("/failures/unexpected")
    _assert_problem(response, 500)
    assert "canary" not in response.text
    assert [event["event"] for event in events] == ["request.failed", "request.completed"]


@pytest.mark.parametrize("path", ["/nowhere", "/notes//7", "/notes/0", "/notes/-1", "/notes/2147483648"])
def test_what_is_no_resource_is_not_found(client, path):
    _assert_problem(client.get(path), 404)


def test_a_wrong_method_is_told_the_right_ones(client):
    response = client("DELETE", "/notes/")
    _assert_problem(response, 405)
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_does_not_claim_to_be_json_is_415(client, media_type):
    headers = {"Content-Type": media_type} if media_type else {}
    _assert_problem(client.post("/notes/", data=b'{"title": "a"}', headers=headers), 415)


def test_a_compressed_body_is_415(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    _assert_problem(client.post("/notes/", data=gzip.compress(b'{"title": "a"}'), headers=headers), 415)


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "application/foo+json"])
def test_json_is_taken(client, media_type):
    response = client.post("/notes/", data=b'{"title": "a"}', headers={"Content-Type": media_type})
    assert (response.status_code, response.json()) == (201, {"title": "a"})


def _note(**members):
    return json.dumps({"title": "a", **members}).encode()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        pytest.param(b"", 400, "body", id="empty"),
        pytest.param(b" ", 400, "body", id="blank"),
        pytest.param(b"{", 400, "body", id="cut"),
        pytest.param(b"{'title': 'a'}", 400, "body", id="single quotes"),
        pytest.param(b'{"title": "a"} {}', 400, "body", id="two documents"),
        pytest.param(b'{"title": "a",}', 400, "body", id="trailing comma"),
        pytest.param(b'{"title": "\xff"}', 400, "body", id="no UTF-8"),
        pytest.param(b'{"title": "\\ud800"}', 400, "body", id="lone surrogate"),
        pytest.param(b'{"title": "a\x00"}', 400, "body", id="raw NUL"),
        pytest.param(b"[" * 100_000, 413, None, id="100k brackets"),
        pytest.param(b"[" * 60_000, 400, "body", id="60k brackets"),
        pytest.param(b'{"title":' * 7000, 400, "body", id="7k objects"),
        pytest.param(b"[" * 30_000 + b"]" * 30_000, 400, "body", id="30k closed brackets"),
        pytest.param(b'{"title": "a", "ratio": NaN}', 422, "ratio", id="NaN"),
        pytest.param(b'{"title": "a", "ratio": Infinity}', 422, "ratio", id="Infinity"),
        pytest.param(b'{"title": "a", "ratio": 1e999}', 422, "ratio", id="1e999"),
        pytest.param(b'{"title": "a", "count": NaN}', 422, "count", id="NaN for an integer"),
        pytest.param(b"[]", 422, "body", id="array"),
        pytest.param(b'"text"', 422, "body", id="string"),
        pytest.param(b"null", 422, "body", id="null"),
        pytest.param(b"7", 422, "body", id="number"),
        pytest.param(b"{}", 422, "title", id="nothing given"),
        pytest.param(_note(title=None), 422, "title", id="null for a string"),
        pytest.param(_note(title=7), 422, "title", id="number for a string"),
        pytest.param(_note(title=["a"]), 422, "title", id="array for a string"),
        pytest.param(_note(title=""), 422, "title", id="too short"),
        pytest.param(_note(title="a" * 21), 422, "title", id="too long"),
        pytest.param(_note(title="a\0b"), 422, "title", id="escaped NUL"),
        pytest.param(_note(title="a\nb"), 422, "title", id="line break"),
        pytest.param(_note(count=True), 422, "count", id="boolean for an integer"),
        pytest.param(_note(count=1.0), 422, "count", id="float for an integer"),
        pytest.param(_note(count=1.5), 422, "count", id="fraction for an integer"),
        pytest.param(_note(count="1"), 422, "count", id="string for an integer"),
        pytest.param(_note(count=0), 422, "count", id="below the range"),
        pytest.param(_note(count=2**31), 422, "count", id="above the range"),
        pytest.param(b'{"title": "a", "count": ' + b"9" * 5000 + b"}", 400, "body", id="5000 digits"),
        pytest.param(_note(flag=1), 422, "flag", id="number for a boolean"),
        pytest.param(_note(flag="true"), 422, "flag", id="string for a boolean"),
        pytest.param(_note(ratio=True), 422, "ratio", id="boolean for a float"),
        pytest.param(_note(extra=1), 422, "extra", id="unknown field"),
        pytest.param(_note(**{"x" * 5000: 1}), 422, "x" * 64, id="unknown field with a long name"),
    ],
)
def test_a_bad_body_gets_a_4xx_that_names_the_field(client, body, status, field):
    response = client.post("/notes/", data=body, headers={"Content-Type": "application/json"})
    problem = _assert_problem(response, status)
    assert len(response.content) < 2000
    if status == 422:
        assert field in [error["field"] for error in problem["errors"]]
        assert {error["location"] for error in problem["errors"]} == {"body"}
    if field:
        assert field in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"title": "a", "title": "a"}', "title"),
        (b'{"title": "a", "count": 1, "count": 2}', "count"),
        (b'{"title": "a", "\\u0074itle": "b"}', "title"),
        (b'{"title": "a", "labels": {"b": "1", "b": "2"}}', "b"),
        (b'{"title": "a", "labels": {"b": "1", "c": "2", "\\u0062": "3"}}', "b"),
    ],
)
def test_a_name_given_twice_is_no_json_and_named(client, body, field):
    """One reader takes the first, another the last: whoever checks a request may not see what another one acts on."""
    response = client.post("/notes/", data=body, headers={"Content-Type": "application/json"})
    problem = _assert_problem(response, 400)
    assert problem["type"] == "urn:sample:problem:malformed-json"
    assert [(error["location"], error["field"]) for error in problem["errors"]] == [("body", field)]


def test_a_byte_order_mark_is_no_json(client):
    response = client.post("/notes/", data=b'\xef\xbb\xbf{"title": "a"}', headers={"Content-Type": "application/json"})
    _assert_problem(response, 400)


@pytest.mark.parametrize("charset", ["utf-16", "latin-1"])
def test_a_body_in_another_encoding_is_no_json(client, charset):
    headers = {"Content-Type": f"application/json; charset={charset}"}
    _assert_problem(client.post("/notes/", data='{"title": "é"}'.encode(charset), headers=headers), 400)


@pytest.mark.parametrize(
    "head",
    [
        b"Idempotency-Key: a\r\nIdempotency-Key: b",
        b"Idempotency-Key: a\r\nIdempotency-Key: a",
        b"Idempotency-Key: a\r\nidempotency-key: b",
        b"Idempotency-Key: a\r\nIdempotency-Key:",
        b"Idempotency-Key: a,b",
        b"Idempotency-Key: ",
        b"Idempotency-Key: a b",
        b"Idempotency-Key: a\tb",
        b"Idempotency-Key: a\xe9",
        b"Idempotency-Key: 123456789",
    ],
)
def test_a_key_that_is_not_one_key_is_refused_by_name(client, head):
    address = ("127.0.0.1", int(client.root.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(
            b"POST /notes/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: 14\r\n" + head + b'\r\n\r\n{"title": "a"}'
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.split()[1] == b"422"
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert [(error["location"], error["field"]) for error in problem["errors"]] == [("header", "Idempotency-Key")]


def test_a_bad_value_is_not_repeated_in_the_answer(client):
    """It may be a password typed into the wrong field."""
    response = client.post("/notes/", {"title": "canary-" * 9, "count": "canary", "ratio": "canary"})
    _assert_problem(response, 422)
    assert "canary" not in response.text


def test_of_many_bad_fields_ten_are_named(client):
    response = client.post("/notes/", {f"field{n}": n for n in range(1000)})
    assert len(_assert_problem(response, 422)["errors"]) == 10


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=NaN", "limit"),
        ("limit=%00", "limit"),
        ("limit=" + "9" * 1000, "limit"),
        ("limit=5&limit=6", "limit"),
        ("unknown=1", "unknown"),
        ("Limit=5", "Limit"),
        ("cursor=x", "cursor"),
    ],
)
def test_a_bad_query_parameter_is_named(client, query, field):
    problem = _assert_problem(client.get(f"/notes/?{query}"), 422)
    assert [(error["location"], error["field"]) for error in problem["errors"]] == [("query", field)]


def test_a_bad_header_is_named(client):
    problem = _assert_problem(client.post("/notes/", {"title": "a"}, headers={"Idempotency-Key": "x" * 9}), 422)
    assert problem["errors"][0]["location"] == "header"
    assert problem["errors"][0]["field"] == "Idempotency-Key"


def _raw(client, head, body):
    """Send until the other side has had enough, and return the status line's status."""
    host, port = client.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(f"{head}\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode())
            for part in body:
                connection.sendall(part)
        except OSError:
            pass  # it answered and closed without reading the rest, as it should
        return int(connection.recv(64).split()[1])


def test_a_body_of_10_mb_is_413_before_it_is_read(client):
    """Only the head is sent: an answer comes without the body, so nothing of it is kept in memory."""
    assert _raw(client, "POST /notes/ HTTP/1.1", [b"Content-Length: 10485760\r\n\r\n"]) == 413


def test_a_chunked_body_over_the_limit_is_413(client):
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    body = [b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 5, b"0\r\n\r\n"]
    assert _raw(client, "POST /notes/ HTTP/1.1", body) == 413


def test_a_chunked_body_within_the_limit_is_read(client):
    assert client.post("/notes/", data=iter([b'{"title"', b': "a"}']), headers={"Content-Type": "application/json"}).ok


def test_a_service_that_is_not_ready_says_what_it_wants_and_is_alive(serve):
    state = {"down": True}

    def check():
        if state["down"]:
            raise DependencyUnavailable("order-db")

    client = serve(sample_app(ready_checks=[check]))
    response = client.get("/readyz")
    assert _assert_problem(response, 503)["detail"].startswith("order-db")
    assert response.headers["Retry-After"] == "1"
    assert client.get("/healthz").json() == {"status": "ok"}
    state["down"] = False
    assert client.get("/readyz").json() == {"status": "ready"}


def test_each_request_logs_one_line_without_the_clients_text(client):
    with capture_logs() as events:
        client.get("/notes/7?limit=canary", headers={"X-Any": "canary", "User-Agent": "canary"})
        client.get("/canary")
        client("CANARY", "/notes/7")
        client.post("/notes/", {"title": "canary" * 9})
        client.get("/healthz")
        eventually(lambda: len(events) >= 4)
    assert [(e["method"], e["http_route"], e["status"]) for e in events] == [
        ("GET", "/notes/{note_id}", 200),
        ("GET", "unmatched", 404),
        ("_OTHER", "unmatched", 405),
        ("POST", "/notes/", 422),
    ]
    assert "canary" not in str(events).lower()
