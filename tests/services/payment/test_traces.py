"""The part of an order's trace that payment-service makes."""

import pytest
from structlog.testing import capture_logs

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


pytestmark = pytest.mark.usefixtures("exported")


@pytest.fixture
def traced(charge):
    def ask(client, **members):
        session = client.session
        session.headers["traceparent"] = f"00-{TRACE}-00f067aa0ba902b7-01"
        try:
            return charge(client, **members)
        finally:
            del session.headers["traceparent"]

    return ask


def _tree(spans):
    names = {span.span_id: span.name for span in spans}
    return [(s.name, s.kind, names.get(s.parent_id)) for s in sorted(spans, key=lambda s: s.start_ns)]


@pytest.mark.parametrize(("amount", "outcome"), [(1450, "PAID"), (10**12, "DECLINED")])
def test_a_charge_is_looked_up_decided_and_recorded(client, traced, collector, signer, amount, outcome):
    client.get("/payments/1", signer.token())  # auth-service's keys are known from now on
    traced(client, amount_minor=amount)
    spans = collector.trace(TRACE, 4)
    assert _tree(spans) == [
        ("POST /internal/charges", "SERVER", None),
        ("SELECT payments", "CLIENT", "POST /internal/charges"),
        ("decide charge", "INTERNAL", "POST /internal/charges"),
        ("INSERT payments", "CLIENT", "POST /internal/charges"),
    ]
    assert {span.service for span in spans} == {"payment-service"}
    assert collector.one("decide charge").attributes == {"shop.order.id": 7, "shop.payment.outcome": outcome}
    assert not any(span.failed for span in spans)


def test_a_processor_that_is_down_is_why_a_charge_failed(client, traced, collector, fault):
    fault("payment-down")
    with capture_logs() as events:
        traced(client)
    assert {"event": "processor.unavailable", "order_id": 7, "log_level": "warning"} in events
    collector.trace(TRACE, 3)
    decide = collector.one("decide charge")
    assert decide.failed
    assert decide.attributes == {"shop.order.id": 7, "error.type": "ProcessorDown"}
    server = collector.one("POST /internal/charges")
    assert (server.failed, server.attributes["error.type"]) == (True, "503")
