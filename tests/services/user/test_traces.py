"""What user-service's spans say, and that they say nothing of users."""

import pytest

from servicekit.web.errors import DependencyUnavailable
from user_service.passwords import Passwords

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GATEWAY = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


pytestmark = pytest.mark.usefixtures("exported")


@pytest.mark.parametrize("password", ["canary horse", "wrong canary"])
def test_a_check_of_a_password_is_a_span_that_says_no_more_than_that(
    client, check, register, collector, signer, password
):
    register("canary-ada", "canary horse")
    client.get("/users/me", signer.token())  # auth-service's keys are known from now on
    check("canary-ada", password, headers=GATEWAY)
    spans = collector.trace(TRACE, 3)
    names = {span.span_id: span.name for span in spans}
    assert [(s.name, s.kind, names.get(s.parent_id)) for s in sorted(spans, key=lambda s: s.start_ns)] == [
        ("POST /internal/credentials", "SERVER", None),
        ("SELECT users", "CLIENT", "POST /internal/credentials"),
        ("verify password", "INTERNAL", "POST /internal/credentials"),
    ]
    assert collector.one("verify password").attributes == {}
    assert not any(span.failed for span in spans)
    assert b"canary" not in b"".join(collector.bodies)


def test_a_check_that_waited_in_vain_for_its_turn_failed(check, register, collector, monkeypatch):
    def refuse(*_):
        raise DependencyUnavailable("user-service")

    register("ada", "correct horse")
    monkeypatch.setattr(Passwords, "matches", refuse)
    answer = check(headers=GATEWAY)
    assert answer.status_code == 503
    span = collector.one("verify password")
    assert (span.failed, span.attributes) == (True, {"error.type": "DependencyUnavailable"})


def test_a_name_that_is_taken_is_the_databases_refusal_by_sqlstate_without_the_row(register, collector):
    register("canary-ada")
    assert register("canary-ada").status_code == 409
    collector.settled()
    (refused,) = [span for span in collector.named("INSERT users") if span.failed]
    assert refused.attributes["error.type"] == "UniqueViolation"
    assert refused.attributes["db.response.status_code"] == "23505"
    assert b"canary" not in b"".join(collector.bodies)
