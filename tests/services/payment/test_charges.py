import concurrent.futures

import pytest
from structlog.testing import capture_logs

from payment_service.settings import ProcessorSettings
from servicekit.config import ConfigError, load
from tests.fixtures.services import Signer, eventually, quickest

ROWS = "SELECT order_id, user_id, amount_minor, currency, outcome FROM payments.payments"


def test_a_charge_is_paid_and_recorded(client, charge, database):
    answer = charge(client)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("created_at")
    assert body == {
        "id": body["id"],
        "order_id": 7,
        "outcome": "PAID",
        "decline_reason": None,
        "amount_minor": 1450,
        "currency": "EUR",
    }
    assert database.run(ROWS) == [(7, 1, 1450, "EUR", "PAID")]


@pytest.mark.parametrize(
    ("amount", "outcome", "reason"),
    [
        (0, "PAID", None),
        (1, "PAID", None),
        (100_000, "PAID", None),
        (100_001, "DECLINED", "amount_over_limit"),
        (10**12, "DECLINED", "amount_over_limit"),
    ],
)
def test_the_limit_decides(client, charge, amount, outcome, reason):
    answer = charge(client, amount_minor=amount)
    assert answer.status_code == 201
    assert (answer.json()["outcome"], answer.json()["decline_reason"]) == (outcome, reason)


def test_the_limit_is_a_setting(start, charge):
    assert charge(start(payment_limit_minor=10), amount_minor=11).json()["outcome"] == "DECLINED"


def test_the_same_key_again_gives_the_same_payment(client, charge, database):
    first, second = charge(client), charge(client)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(database.run(ROWS)) == 1


def test_a_declined_charge_stays_declined_when_it_is_asked_for_again(start, charge):
    """The books decide, not the settings of the day."""
    first = charge(start(payment_limit_minor=10), amount_minor=11)
    second = charge(start(), amount_minor=11)
    assert (second.status_code, second.json()) == (200, first.json())


@pytest.mark.parametrize("change", [{"amount_minor": 1}, {"order_id": 8}, {"user_id": 2}, {"currency": "USD"}])
def test_a_key_that_stands_for_another_charge_is_422(client, charge, database, change):
    charge(client)
    answer = charge(client, **change)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:shop:problem:idempotency-key-reused"
    assert len(database.run(ROWS)) == 1


def test_20_at_once_with_one_key_are_one_charge(client, charge, database):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: charge(client), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(database.run(ROWS)) == 1
    assert client.metric("payments_total", outcome="PAID") == 1


def test_an_outage_is_503_and_records_nothing(client, charge, database, fault):
    fault("payment-down")
    answer = charge(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "payment-processor" in answer.json()["detail"]
    assert database.run(ROWS) == []
    assert client.metric("payments_total", outcome="UNAVAILABLE") == 1
    assert client.get("/readyz").status_code == 200  # the fault is the processor's, not this service's


@pytest.mark.parametrize("name", ["payment-down", "payment-slow"])
def test_what_was_charged_before_a_fault_is_answered_during_it(start, charge, fault, name):
    payment = charge(start()).json()
    fault(name, "strong" if name == "payment-slow" else "on")
    answer = charge(start())
    assert (answer.status_code, answer.json()) == (200, payment)
    assert answer.elapsed.total_seconds() < 2


def test_a_slow_processor_thinks_for_as_long_as_it_says(client, charge, fault):
    fault("payment-slow", "weak")
    answer = charge(client)
    assert answer.json()["outcome"] == "PAID"
    assert answer.elapsed.total_seconds() >= 0.3


def test_only_charges_in_francs_are_slow(client, charge, fault):
    fault("currency-slow", "weak")
    assert charge(client, "order-1", order_id=1, currency="CHF").elapsed.total_seconds() >= 0.5
    orders = iter(range(2, 5))
    assert quickest(lambda: charge(client, f"order-{(order := next(orders))}", order_id=order)) < 0.5


@pytest.mark.parametrize(
    ("name", "status", "least", "most"), [("payment-flaky", 503, 8, 32), ("payment-declines", 201, 12, 38)]
)
def test_a_share_of_charges_is_hit_the_same_ones_each_time(client, charge, fault, name, status, least, most):
    fault(name)
    answers = [charge(client, f"order-{n}", order_id=n) for n in range(1, 61)]
    hit = [answer.status_code == 503 or answer.json()["outcome"] == "DECLINED" for answer in answers]
    assert least <= sum(hit) <= most
    assert {answer.status_code for answer, is_hit in zip(answers, hit, strict=True) if is_hit} == {status}
    again = [charge(client, f"order-{n}", order_id=n) for n in range(1, 61)]
    assert [answer.status_code == 503 or answer.json()["outcome"] == "DECLINED" for answer in again] == hit


def test_a_wrong_answer_is_about_another_amount_and_the_books_are_right(client, charge, fault, database):
    fault("payment-wrong")
    answer = charge(client)
    assert (answer.status_code, answer.json()["amount_minor"]) == (201, 1451)
    assert database.run(ROWS) == [(7, 1, 1450, "EUR", "PAID")]
    assert charge(client).json()["amount_minor"] != 1450


def test_charges_are_counted_and_logged_with_ids_and_amounts_only(client, charge):
    assert client.metric("payments_total", outcome="DECLINED") == 0
    assert 'payments_total{outcome="UNAVAILABLE"} 0.0' in client.get("/metrics").text
    with capture_logs() as events:
        payment = charge(client, amount_minor=100_001).json()
        charge(client, amount_minor=100_001)
    decided = next(event for event in events if event["event"] == "charge.decided")
    assert decided["payment_id"] == payment["id"]
    assert decided["outcome"] == "DECLINED"
    assert decided["amount_minor"] == 100_001
    assert next(event for event in events if event["event"] == "charge.repeated")["payment_id"] == payment["id"]
    assert client.metric("payments_total", outcome="DECLINED") == 1


@pytest.mark.parametrize("key", [None, "", "a b", "x" * 65, "\x7f", "\xe4"])
def test_a_charge_without_a_proper_key_is_refused(client, charge, key, database):
    answer = charge(client, key if key is None else key.encode("latin-1"))
    assert answer.status_code == 422
    assert [(error["location"], error["field"]) for error in answer.json()["errors"]] == [("header", "Idempotency-Key")]
    assert database.run(ROWS) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order_id", 0),
        ("order_id", True),
        ("order_id", 2**31),
        ("order_id", "7"),
        ("user_id", None),
        ("user_id", -1),
        ("amount_minor", -1),
        ("amount_minor", 1.5),
        ("amount_minor", 10**12 + 1),
        ("amount_minor", "1450"),
        ("currency", "eur"),
        ("currency", "EURO"),
        ("currency", "EUR\n"),
        ("currency", ""),
        ("tip", 1),
    ],
)
def test_a_bad_charge_is_422_and_names_the_field(client, charge, field, value):
    answer = charge(client, **{field: value})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYMENT_LIMIT_MINOR", "-1"),
        ("PAYMENT_LIMIT_MINOR", "1000.50"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        load(ProcessorSettings)


def test_a_fault_that_is_set_shows_in_the_metrics_and_is_gone_when_it_is_off(client, fault):
    assert client.metric("simulated_faults", fault="payment-down") == 0
    assert 'simulated_faults{fault="payment-down"} 0.0' in client.get("/metrics").text
    fault("payment-down")
    eventually(lambda: client.metric("simulated_faults", fault="payment-down") == 1, 2)
    assert client.metric("simulated_faults", fault="payment-slow") == 0
    fault("payment-down", "off")
    eventually(lambda: client.metric("simulated_faults", fault="payment-down") == 0, 2)


REFUSED = {
    "nothing": (401, lambda _: None),
    "garbage": (401, lambda _: "garbage"),
    "a customer's token": (401, lambda s: s.token()),
    "an admin's token": (401, lambda s: s.token(role="admin")),
    "a token for another service": (401, lambda s: s.service_token("order-service", "user-service")),
    "one that has expired": (401, lambda s: s.service_token(exp=1_700_000_000)),
    "one of another key": (401, lambda s: s.service_token(key=Signer().key)),
    "one of another service": (403, lambda s: s.service_token("auth-service")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nobody_but_order_service_charges(client, signer, database, kind):
    status, token = REFUSED[kind]
    body = {"order_id": 7, "user_id": 1, "amount_minor": 1450, "currency": "EUR"}
    answer = client.post("/internal/charges", body, token(signer), headers={"Idempotency-Key": "order-7"})
    assert answer.status_code == status
    assert database.run(ROWS) == []
    again = client.post("/internal/charges", {}, token(signer))  # nor learns how to ask
    assert again.status_code == status


def test_a_services_token_is_no_users(client, signer):
    assert client.get("/payments/1", signer.service_token()).status_code == 401
