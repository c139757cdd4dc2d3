"""The reconciler: what a request could not finish is finished, once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from structlog.testing import capture_logs

from order_service.app import create_app
from order_service.reconciler import Reconciler
from tests.fixtures.services import eventually, task


@pytest.fixture
def pending(orders, token, payments):
    """Place orders while payment is down: `pending(3)` gives their ids."""

    def place(count):
        payments.status = 503
        ids = [orders.post("/orders/", {"product_id": 1}, token).json()["id"] for _ in range(count)]
        payments.status = None
        payments.tries = 0
        return ids

    return place


def test_pending_orders_are_settled_when_payment_is_back(orders, token, pending, reconcile):
    ids = pending(3)
    reconcile()
    assert [orders.get(f"/orders/{order_id}", token).json()["status"] for order_id in ids] == ["PAID"] * 3
    assert orders.metric("orders_reconciled_total") == 3


def test_it_runs_by_itself_in_the_background(app, orders, token, pending, database):
    (order_id,) = pending(1)
    reconciler = task(app, "reconciler")
    reconciler.start()
    database.run("UPDATE orders.orders SET charge_after = now()")
    eventually(lambda: orders.get(f"/orders/{order_id}", token).json()["status"] == "PAID")


def test_an_order_that_a_request_is_working_on_is_left_alone(app, pending, payments, rows):
    pending(1)
    reconciler = task(app, "reconciler")
    reconciler.run_once()
    assert payments.tries == 0
    assert [status for _, status, *_ in rows()] == ["PENDING"]


def test_an_order_whose_charge_was_made_is_paid_without_a_second_charge(
    orders, token, database, payments, reconcile, rows
):
    order_id = orders.post("/orders/", {"product_id": 1}, token).json()["id"]
    charges = dict(payments.charges)
    # As if the process had died between charge and UPDATE:
    database.run("UPDATE orders.orders SET status = 'PENDING', payment_id = NULL")
    reconcile()
    assert payments.charges == charges
    assert rows() == [(order_id, "PAID", 1, 7)]


def test_declined_is_an_end_too(orders, token, pending, payments, reconcile):
    (order_id,) = pending(1)
    payments.outcome = "DECLINED"
    reconcile()
    assert orders.get(f"/orders/{order_id}", token).json()["status"] == "DECLINED"


def test_while_payment_is_down_it_knocks_three_times_a_round(pending, payments, reconcile, rows):
    pending(5)
    payments.status = 503
    reconcile()
    assert payments.tries == 3
    assert [status for _, status, *_ in rows()] == ["PENDING"] * 5


def test_a_broken_order_does_not_keep_the_others_waiting(database, pending, reconcile, rows):
    database.run("INSERT INTO orders.orders (product, status, user_id) VALUES ('{}', 'PENDING', 7)")
    pending(2)
    reconcile()
    assert [status for _, status, *_ in rows()] == ["PENDING", "PAID", "PAID"]


def test_orders_that_payment_chokes_on_do_not_keep_the_others_waiting(app, database, pending, payments, rows):
    ids = pending(8)
    payments.broken = {f"order-{order_id}" for order_id in ids[:4]}
    database.run("UPDATE orders.orders SET charge_after = now() - interval '1 s' + id * interval '1 ms'")
    reconciler = task(app, "reconciler")
    for _ in range(2):  # the first round gives up after three misses in a row
        reconciler.run_once()
    assert [status for _, status, *_ in rows()] == ["PENDING"] * 4 + ["PAID"] * 4


def test_hundreds_that_payment_refuses_do_not_keep_one_that_it_takes_waiting(app, database, pending, payments, rows):
    """They are due again and again, and before it each time."""
    database.run(
        "INSERT INTO orders.orders (product, status, user_id, charge_after)"
        ' SELECT \'{"id": 1, "unit_price_minor": 1, "currency": "EUR"}\', \'PENDING\', 7, now() - interval \'1 h\''
        " FROM generate_series(1, 300)"
    )
    payments.refused = {f"order-{order_id}" for order_id, *_ in rows()}
    (genuine,) = pending(1)
    database.run("UPDATE orders.orders SET charge_after = now() - interval '1 s' WHERE id = %s", genuine)
    reconciler = task(app, "reconciler")
    reconciler.run_once()
    assert {status for order_id, status, *_ in rows() if order_id != genuine} == {"PENDING"}
    assert (genuine, "PAID", 1, 7) in rows()
    assert payments.tries == 301


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b"[]",
        b"null",
        b"7",
        {"outcome": "PENDING"},
        {"outcome": "paid"},
        {"outcome": None},
        {"id": "100"},
        {"id": True},
        {"id": 2**31},
        {"order_id": None},
        {"order_id": 2**31 - 1},
        {"amount_minor": None},
        {"amount_minor": 1},
        {"currency": None},
        {"currency": "USD"},
    ],
)
def test_an_answer_that_is_no_payment_settles_nothing_and_stops_no_round(
    orders, pending, payments, reconcile, rows, answer
):
    pending(4)
    if isinstance(answer, dict):
        payments.wrong = answer
    else:
        payments.body = answer
    reconcile()
    assert payments.tries == 4
    assert {status for _, status, *_ in rows()} == {"PENDING"}
    assert orders.metric("charges_refused_total") == 4
    payments.body, payments.wrong = None, {}
    reconcile()
    assert {status for _, status, *_ in rows()} == {"PAID"}


@pytest.mark.parametrize(
    "product",
    [
        "{}",
        "null",
        "7",
        "[]",
        '"text"',
        '{"unit_price_minor": null, "currency": "EUR"}',
        '{"unit_price_minor": "dear", "currency": "EUR"}',
        '{"unit_price_minor": "1450", "currency": "EUR"}',
        '{"unit_price_minor": 14.5, "currency": "EUR"}',
        '{"unit_price_minor": true, "currency": "EUR"}',
        '{"unit_price_minor": [1450], "currency": "EUR"}',
        '{"unit_price_minor": -1, "currency": "EUR"}',
        '{"unit_price_minor": 100000000000000000000000000000000, "currency": "EUR"}',
        '{"unit_price_minor": 1450}',
    ],
)
def test_an_order_written_by_hand_without_a_price_is_refused_and_fails_no_round(
    orders, database, pending, payments, reconcile, rows, product
):
    database.run("INSERT INTO orders.orders (product, status, user_id) VALUES (%s, 'PENDING', 7)", product)
    pending(1)
    with capture_logs() as events:
        reconcile()
    assert "task.failed" not in {event["event"] for event in events}
    assert [event["reason"] for event in events if event["event"] == "charge.refused"] == ["no_price"]
    assert orders.metric("charges_refused_total") == 1
    assert payments.tries == 1
    assert [status for _, status, *_ in rows()] == ["PENDING", "PAID"]


def test_all_that_wait_are_settled_in_one_round(pending, reconcile, rows):
    pending(25)
    reconcile()
    assert {status for _, status, *_ in rows()} == {"PAID"}


def test_replicas_share_the_work(settings, database, pending, payments, rows):
    pending(30)
    payments.delay = 0.05
    database.run("UPDATE orders.orders SET charge_after = now() - interval '1 s'")
    replicas = [task(create_app(settings), "reconciler") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda reconciler: reconciler.run_once(), replicas))
    assert {status for _, status, *_ in rows()} == {"PAID"}
    assert payments.tries == 30


def test_the_backlog_and_its_age_are_measured(orders, database, pending, payments, reconcile):
    oldest, _ = pending(2)
    aged = "UPDATE orders.orders SET created_at = now() AT TIME ZONE 'UTC' - interval '90 s' WHERE id = %s"
    database.run(aged, oldest)
    payments.status = 503
    reconcile()
    assert orders.metric("orders_pending") == 2
    assert 89 < orders.metric("orders_pending_oldest_age_seconds") < 120
    payments.status = None
    reconcile()
    assert orders.metric("orders_pending") == 0
    assert orders.metric("orders_pending_oldest_age_seconds") == 0


def test_the_backlog_is_measured_while_a_round_has_no_end(monkeypatch):
    """Orders whose charge is refused come back as fast as they are tried: who looks at the graph must see them."""
    measured, tried = [], []

    class Orders:
        def lease_pending(self):
            return object()

        def backlog(self):
            return len(tried)

    class Ordering:
        def settle(self, order, *, late):
            tried.append(late)
            return order, True  # payment answered: it refuses

    class Signals:
        def order_reconciling(self, _order):
            return nullcontext()

        def order_reconciled(self, order):
            pass

        def backlog_measured(self, backlog):
            measured.append(backlog)

    monkeypatch.setattr("order_service.reconciler.INTERVAL_SECONDS", 0.0)
    Reconciler(Orders(), Ordering(), Signals()).run(lambda: len(tried) == 5)
    assert measured == [0, 1, 2, 3, 4, 5, 5]
