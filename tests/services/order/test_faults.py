"""order-service's own faults, on the wire."""

import threading

import pytest

from order_service.app import create_app
from tests.fixtures.services import eventually, quickest, task


@pytest.fixture
def flagged(settings, fault):
    app = create_app(settings.model_copy(update={"flags_file": fault.path, "database_pool_size": 3}))
    yield app
    for one in app.extensions["tasks"]:
        if one.started:
            one.stop()


@pytest.fixture
def client(flagged, serve, signer):
    served = serve(flagged)
    served.place = lambda user=1: served.post("/orders/", {"product_id": 1}, signer.token(user))
    return served


def test_only_the_orders_of_one_user_are_slow(client, fault):
    client.place()  # whatever has to be had first
    fault("user-slow", "weak")
    eventually(lambda: client.place(1).elapsed.total_seconds() >= 0.5, 3)
    assert quickest(lambda: client.place(2)) < 0.5


def test_a_column_that_is_not_there_fails_orders_with_postgresqls_code(client, fault, database):
    fault("orders-column")
    answer = client.place()
    assert answer.status_code == 500
    assert database.run("SELECT count(*) FROM orders.orders") == [(0,)]
    fault("orders-column", "off")
    eventually(lambda: client.place().status_code == 201, 2)


def test_a_full_disk_is_503_and_no_order(client, fault, database):
    fault("disk-full")
    answer = client.place()
    assert (answer.status_code, "order-db" in answer.json()["detail"]) == (503, True)
    assert database.run("SELECT count(*) FROM orders.orders") == [(0,)]
    assert client.get("/readyz").status_code == 200


def test_reading_an_order_scans_far_more_than_it_returns(client, fault, signer):
    path = client.place().headers["Location"]
    fault("orders-scan", "weak")
    answer = eventually(
        lambda: (answer := client.get(path, signer.token())).elapsed.total_seconds() > 0.05 and answer, 3
    )
    assert answer.json()["status"] == "PAID"


def test_orders_wait_for_a_lock(client, flagged, fault, database):
    client.place()
    fault("orders-lock", "strong")
    nuisance = task(flagged, "nuisance")
    eventually(lambda: client.metric("simulated_faults", fault="orders-lock"), 2)
    locking = threading.Thread(target=nuisance.run_once)
    locking.start()
    held = "granted AND mode = 'AccessExclusiveLock' AND relation = 'orders.orders'::regclass"
    eventually(lambda: database.run(f"SELECT 1 FROM pg_locks WHERE {held}"))
    assert client.place().elapsed.total_seconds() > 0.5
    locking.join()


def test_reports_take_the_connections(client, flagged, fault):
    client.place()
    fault("pool-exhausted")
    nuisance = task(flagged, "nuisance")
    eventually(lambda: nuisance.run_once() or client.place().status_code == 503, 30)
    assert client.metric("db_client_connection_timeouts_total") > 0
    fault("pool-exhausted", "off")
    eventually(lambda: client.place().status_code == 201, 30)


def links():
    return sum(thread.name == "link" for thread in threading.enumerate())


@pytest.mark.parametrize("kind", ["slow", "lossy", "reset", "silent"])
def test_a_bad_network_hurts_charges_and_loses_none(client, fault, kind, payments):
    before = links()
    assert client.place().status_code == 201
    fault("payment-link", kind)
    eventually(lambda: client.metric("simulated_faults", fault="payment-link"))
    answers = [client.place() for _ in range(8)]
    if kind == "lossy":  # it is left to chance which order is hurt
        eventually(lambda: answers.append(client.place()) or answers[-1].elapsed.total_seconds() > 0.9, 30)
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 202}
    if kind == "slow":
        assert statuses == {201}
        assert max(answer.elapsed.total_seconds() for answer in answers) > 0.29
    if kind == "silent":
        assert statuses == {202}
    fault("payment-link", "off")
    eventually(lambda: client.place().status_code == 201, 10)
    if kind == "silent":  # who waited has given up, and nothing waits on
        eventually(lambda: links() <= before + 1, 10)  # which listens
    keys = [charge["order_id"] for charge in payments.charges.values()]
    assert len(keys) == len(set(keys))
