"""The trace of a login, as far as auth-service makes it."""

import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


pytestmark = pytest.mark.usefixtures("exported")


@pytest.mark.parametrize(("password", "status"), [("correct horse", 200), ("canary", 401)])
def test_a_login_asks_user_service_and_shows_no_credentials(client, collector, users, password, status):
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = client.post("/auth/login", {"username": "ada", "password": password}, headers=headers)
    assert answer.status_code == status
    collector.trace(TRACE, 2)
    server, call = collector.one("POST /auth/login"), collector.one("POST /internal/credentials")
    assert (call.kind, call.parent_id, call.service) == ("CLIENT", server.span_id, "auth-service")
    assert call.attributes["peer.service"] == "user-service"
    assert (server.failed, call.failed) == (False, status == 401)
    bodies = b"".join(collector.bodies)
    for secret in (b"canary", b"correct horse", b"ada", *filter(None, [answer.json().get("token", "").encode()])):
        assert secret not in bodies
