"""The books find each way in which an order can go wrong, in a real database."""

import pytest

from loadtest.books import check
from loadtest.records import Attempt
from local.errors import LocalError
from local.orderdb import connecting

RUN = "load-0123abcd"


class Shop:
    """What the services would write, by hand."""

    def __init__(self, database):
        self._run = database.run
        self.ask = connecting(
            host=database.host,
            port=database.port,
            dbname=database.name,
            user="orders_user",
            password=database.password_file().read_text,
            seconds=10,
        )
        self.attempts = []

    def change(self, statement, *values):
        self._run(statement, *values)

    def place(self, status="PAID", told=None, user=1, key=None):
        """An order as it should be, its charge, and what the client was told; its id."""
        key = key or f"{RUN}-{len(self.attempts)}"
        product = '{"id": 3, "unit_price_minor": 500, "currency": "EUR"}'
        [(order,)] = self._run(
            "INSERT INTO orders.orders (user_id, product, status, idempotency_key) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            user,
            product,
            status,
            key,
        )
        if status != "PENDING":
            self.charge(order, status)
        self.attempts.append(Attempt(key, 3, 1, "told", order, told or status))
        return order

    def charge(self, order, outcome="PAID", key=None):
        [(payment,)] = self._run(
            "INSERT INTO payments.payments (idempotency_key, order_id, user_id, amount_minor, currency, outcome)"
            " VALUES (%s, %s, 1, 500, 'EUR', %s) RETURNING id",
            key or f"order-{order}",
            order,
            outcome,
        )
        self._run("UPDATE orders.orders SET payment_id = %s WHERE id = %s", payment, order)

    def books(self, settle_seconds=0):
        return check(self.ask, RUN, self.attempts, settle_seconds)


@pytest.fixture
def shop(database):
    shop = Shop(database)
    shop.place()
    shop.place("DECLINED")
    return shop


def test_books_in_which_all_agrees_are_balanced(shop):
    shop.place(told="PENDING")
    shop.attempts.append(Attempt(f"{RUN}-refused", 3, 1, "refused"))
    books = shop.books()
    assert books.wrong == []
    assert (books.told, books.settled_late, books.by_status) == (3, 1, {"PAID": 2, "DECLINED": 1})


def test_orders_of_others_are_not_looked_at(shop):
    shop.place("PENDING", key="load-ffffffff-1")
    shop.attempts.pop()
    assert shop.books().balanced


def test_a_lost_order_is_found(shop):
    order = shop.place()
    shop.change("DELETE FROM orders.orders WHERE id = %s", order)
    assert shop.books().wrong == [f"order {order}: the client was told PAID, and it is not there"]


def test_a_doubled_order_is_found(shop):
    order = shop.place(key=f"{RUN}-twice")
    twin = shop.place(user=2, key=f"{RUN}-twice")
    shop.attempts.pop()
    assert shop.books().wrong == [f"one order is there 2 times: orders {order}, {twin}"]


def test_an_order_that_is_there_under_another_id_is_found(shop):
    order = shop.place()
    shop.change("UPDATE orders.orders SET id = %s WHERE id = %s", order + 1000, order)
    shop.change("UPDATE payments.payments SET order_id = %s WHERE order_id = %s", order + 1000, order)
    assert shop.books().wrong == [f"order {order}: the client was told PAID, and it is not there"]


@pytest.mark.parametrize(("status", "told"), [("DECLINED", "PAID"), ("PAID", "DECLINED")])
def test_an_order_with_another_status_than_was_told_is_found(shop, status, told):
    order = shop.place(status, told=told)
    assert shop.books().wrong == [f"order {order}: the client was told {told}, and it is {status}"]


def test_a_double_charge_is_found(shop):
    order = shop.place()
    shop.charge(order, key="again")
    assert shop.books().wrong == [f"order {order}: PAID, and its charges are ['PAID', 'PAID']"]


def test_a_paid_order_without_a_charge_is_found(shop):
    order = shop.place()
    shop.change("DELETE FROM payments.payments WHERE order_id = %s", order)
    assert shop.books().wrong == [f"order {order}: PAID, and its charges are none"]


def test_a_declined_order_that_was_charged_is_found(shop):
    order = shop.place("DECLINED")
    shop.change("UPDATE payments.payments SET outcome = 'PAID' WHERE order_id = %s", order)
    assert shop.books().wrong == [f"order {order}: DECLINED, and its charges are ['PAID']"]


def test_a_charge_of_another_amount_is_found(shop):
    order = shop.place()
    shop.change("UPDATE payments.payments SET amount_minor = 501 WHERE order_id = %s", order)
    assert shop.books().wrong == [f"order {order}: it costs 500, and 501 was charged"]


def test_an_order_that_names_another_payment_is_found(shop):
    order = shop.place()
    shop.change("UPDATE orders.orders SET payment_id = 999 WHERE id = %s", order)
    assert [text.partition(", and it names ")[2] for text in shop.books().wrong] == ["999"]


def test_an_order_of_something_else_is_found(shop):
    order = shop.place()
    shop.change("UPDATE orders.orders SET quantity = 2 WHERE id = %s", order)
    assert f"order {order}: it is not what was ordered" in shop.books().wrong


def test_an_order_that_stays_pending_is_found_after_a_wait(shop):
    order = shop.place("PENDING")
    books = shop.books(settle_seconds=0.6)
    assert books.wrong == [f"order {order}: still PENDING"]
    assert books.seconds > 0.6


def test_a_refused_order_that_is_in_the_database_is_found(shop):
    order = shop.place()
    shop.attempts[-1] = Attempt(shop.attempts[-1].key, 3, 1, "refused")
    assert shop.books().wrong == [f"order {order}: refused, and yet in the database"]


def test_orders_without_an_answer_are_told_apart_and_are_no_fault(shop):
    shop.place()
    shop.attempts[-1] = Attempt(shop.attempts[-1].key, 3, 1, "unanswered")
    shop.attempts.append(Attempt(f"{RUN}-never-arrived", 3, 1, "unanswered"))
    shop.place()
    shop.attempts.pop()  # a process that was killed had no time to say that it sent it
    books = shop.books()
    assert books.wrong == []
    assert (books.told, books.unanswered, books.unanswered_kept) == (2, 3, {"PAID": 2})


def test_an_order_without_an_answer_is_charged_once_too(shop):
    order = shop.place()
    shop.attempts[-1] = Attempt(shop.attempts[-1].key, 3, 1, "unanswered")
    shop.charge(order, key="again")
    assert shop.books().wrong == [f"order {order}: PAID, and its charges are ['PAID', 'PAID']"]


def test_the_books_are_read_only(shop):
    with pytest.raises(LocalError, match="read-only"):
        shop.ask("DELETE FROM orders.orders RETURNING to_json(id)")
