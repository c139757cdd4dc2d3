"""What nginx lets through and a service does not take for a request: a problem in the gateway's trace all the same."""

import json
import socket

import pytest

from tests.fixtures.services import eventually

HOST = b"Host: x\r\nConnection: close\r\n"
REFUSED = {
    "a control character in a value": (400, b"GET /products/1 HTTP/1.1\r\n" + HOST + b"X-Token: can\x01ary\r\n\r\n"),
    "DEL in a value": (400, b"GET /products/1 HTTP/1.1\r\n" + HOST + b"User-Agent: can\x7fary\r\n\r\n"),
    "two content types": (
        400,
        b"POST /products/ HTTP/1.1\r\n" + HOST + b"Content-Type: a/canary\r\nContent-Type: b/canary\r\n\r\n",
    ),
    "a long method": (400, b"CANARYCANARYCANARYCANARY /products/ HTTP/1.1\r\n" + HOST + b"\r\n"),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
def test_what_a_service_refuses_to_read_is_a_problem_in_the_gateways_trace(stack, status, sent):
    address = ("127.0.0.1", int(stack.gateway.root.rpartition(":")[2]))
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"Content-Type: application/problem+json" in head
    assert b"canary" not in body.lower()
    trace_id = json.loads(body)["trace_id"]
    assert head.count(b"traceresponse: ") == 1
    assert f"traceresponse: 00-{trace_id}-".encode() in head
    log = stack.run_dir / "logs" / "product-service.log"
    (line,) = eventually(lambda: [line for line in log.read_text().splitlines() if trace_id in line])
    event = json.loads(line)
    assert (event["event"], event["http_route"], event["status"]) == ("request.completed", "unmatched", status)
