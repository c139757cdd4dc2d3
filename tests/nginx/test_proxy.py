"""What a service sees of a client, and how connections to services are used."""

import pytest

from tests.fixtures.gateway import answer, read_answer


def test_forwarding_headers_are_the_gateways_own(gateway):
    gateway.request(
        "GET",
        "/orders/",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /evil",
        "X-Real-IP: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "Authorization: Bearer t",
        "Idempotency-Key: k",
    )
    (received,) = gateway.reached()
    assert received.values("X-Forwarded-For") == ["127.0.0.1"]
    assert received.values("X-Forwarded-Proto") == ["http"]
    assert received.values("Host") == ["order-service"]
    assert received.values("Authorization") == ["Bearer t"]
    assert received.values("Idempotency-Key") == ["k"]
    assert "evil" not in str(received.headers)
    assert "6.6.6.6" not in str(received.headers)
    assert not received.values("X_Forwarded_For")


@pytest.mark.parametrize(
    "head",
    [b" HTTP/1.0", b" HTTP/1.0\r\nHost: a", b" HTTP/1.1\r\nHost: shop.example:8443", b" HTTP/1.1\r\nHost: [::1]"],
)
def test_by_whichever_name_a_client_comes_the_service_is_asked_by_its_own(gateway, head):
    """Services refuse names that they do not know; the gateway may be published under any."""
    assert gateway.raw(b"GET /orders/" + head + b"\r\nConnection: close\r\n\r\n").status == 200
    assert gateway.reached()[0].values("Host") == ["order-service"]


def test_a_chunked_body_arrives_whole(gateway):
    gateway.raw(
        b"POST /orders/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert gateway.reached()[0].body == b"abcde"


def test_an_answer_larger_than_the_buffers_arrives_whole(gateway):
    body = bytes(range(256)) * 8192
    gateway.services["product"].reply = lambda _: answer("200 OK", body)
    assert gateway.request("GET", "/products/").body == body


def test_connections_to_a_service_are_kept(gateway):
    stub = gateway.services["product"]
    before = stub.connections
    for _ in range(50):
        assert gateway.request("GET", "/products/").status == 200
    assert stub.connections - before <= 2  # one for each worker
    assert not stub.requests[0].values("Connection")


def test_a_client_connection_is_kept(gateway):
    with gateway.connect() as connection:
        for _ in range(5):
            connection.sendall(b"GET /products/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(connection).status == 200


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("PATCH", 1), ("GET", 2)])
def test_only_an_idempotent_request_is_sent_again_when_a_kept_connection_breaks(gateway, method, times):
    stub = gateway.services["order"]
    with gateway.connect() as connection:  # one client connection, so one worker and its connection to the service
        connection.sendall(b"GET /orders/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection).status == 200
        stub.reply = lambda _: None
        stub.requests.clear()
        connection.sendall(f"{method} /orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert read_answer(connection).status == 502
    assert len(stub.requests) == times


@pytest.mark.parametrize(("target", "times"), [("/orders/", 2), ("/users/", 1)])
def test_an_order_with_an_idempotency_key_is_sent_again_and_nothing_else_is(gateway, target, times):
    stub = gateway.services[target.strip("/")[:-1]]
    with gateway.connect() as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_answer(connection).status == 200
        stub.reply = lambda _: None
        stub.requests.clear()
        connection.sendall(
            f"POST {target}?a=%20b HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        assert read_answer(connection).status == 502
    assert len(stub.requests) == times
    assert {(got.line, got.body) for got in stub.requests} == {(f"POST {target}?a=%20b HTTP/1.1", b"{}")}


def test_the_gateway_adds_its_security_headers_to_a_services_answer(gateway):
    gateway.services["order"].reply = lambda _: answer(
        "201 Created", b"{}", "Location: /orders/1", "Server: gunicorn", "ETag: x", "Cache-Control: no-store"
    )
    got = gateway.request("POST", "/orders/", body=b"{}")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert got.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert got.headers["Server"] == "nginx"
    assert (got.headers["Location"], got.headers["ETag"]) == ("/orders/1", "x")
    assert got.headers.get_all("Cache-Control") == ["no-store"]
