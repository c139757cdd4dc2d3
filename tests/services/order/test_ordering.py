"""The use cases, without any wire: what happens in which order, and what is left when something fails."""

import contextlib
import dataclasses
import inspect

import pytest

from order_service.domain import KeyReused, Order, OrderNotFound, ProductNotFound, Settlement, Status
from order_service.ordering import Ordering
from order_service.signals import Signals
from servicekit.web.errors import DependencyUnavailable

PRODUCT = {"id": 1, "unit_price_minor": 1450, "currency": "EUR"}


class FakeOrders:
    def __init__(self, log):
        self.log, self.orders, self.keys = log, {}, {}
        self.broken = False

    def add(self, user_id, product, quantity, key, traceparent):
        self.log.append("add")
        if key is not None and (user_id, key) in self.keys:
            return None
        order = Order(len(self.orders) + 1, user_id, product, quantity, Status.PENDING, None, None, traceparent)
        self.orders[order.id] = self.keys[user_id, key] = order
        return order

    def by_key(self, user_id, key):
        order = self.keys.get((user_id, key))
        return order and self.orders[order.id]

    def by_id(self, order_id):
        return self.orders.get(order_id)

    def settle(self, order_id, settlement):
        self.log.append("settle")
        if self.broken:
            raise DependencyUnavailable("order-db")
        order = self.orders[order_id]
        if order.status != Status.PENDING:
            return order, False
        self.orders[order_id] = dataclasses.replace(order, status=settlement.status, payment_id=settlement.payment_id)
        return self.orders[order_id], True


class FakeProducts:
    def __init__(self, log):
        self.log, self.error = log, None

    def get(self, _product_id):
        self.log.append("product")
        if self.error:
            raise self.error
        return PRODUCT


class FakePayments:
    def __init__(self, log):
        self.log, self.error = log, None

    def charge(self, order):
        self.log.append("charge")
        if self.error:
            raise self.error
        return Settlement(Status.PAID, 100 + order.id)


class FakeSignals:
    """Notes what it is told. What the real ones do not have, or do not take, is an error here too."""

    spans = ("trace_of_request", "order_settling", "order_settled_elsewhere", "order_answered")

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        real = inspect.signature(getattr(Signals, name))

        def signal(*args, **kwargs):
            real.bind(self, *args, **kwargs)
            if name in self.spans:  # not told: they only say where the rest happens
                return contextlib.nullcontext()
            return self.told.append(name)

        return signal


class Shop:
    def __init__(self):
        self.log = []
        self.orders, self.products, self.payments = FakeOrders(self.log), FakeProducts(self.log), FakePayments(self.log)
        self.signals = FakeSignals()
        self.ordering = Ordering(self.orders, self.products, self.payments, self.signals)


@pytest.fixture
def shop():
    return Shop()


def test_a_signal_that_does_not_exist_is_no_signal():
    with pytest.raises(AttributeError):
        FakeSignals().order_creatd()
    with pytest.raises(TypeError):
        FakeSignals().order_settled(late=True)


def test_an_order_is_kept_before_it_is_charged(shop):
    order, is_new = shop.ordering.place(7, 1, 2, None)
    assert is_new
    assert (order.status, order.payment_id, order.amount_minor) == (Status.PAID, 101, 2900)
    assert shop.log == ["product", "add", "charge", "settle"]
    assert shop.signals.told == ["order_created", "order_settled"]


@pytest.mark.parametrize("error", [ProductNotFound(1), DependencyUnavailable("product-service")])
def test_without_the_product_nothing_is_kept(shop, error):
    shop.products.error = error
    with pytest.raises(type(error)):
        shop.ordering.place(7, 1, 1, None)
    assert shop.log == ["product"]
    assert shop.signals.told == []


def test_without_payment_the_order_waits(shop):
    shop.payments.error = DependencyUnavailable("payment-service")
    order, is_new = shop.ordering.place(7, 1, 1, None)
    assert (order.status, is_new) == (Status.PENDING, True)
    assert shop.signals.told == ["order_created", "order_left_pending"]


def test_a_charge_that_cannot_be_written_down_is_not_lost(shop):
    shop.orders.broken = True
    order, _ = shop.ordering.place(7, 1, 1, None)
    assert order.status == Status.PENDING
    shop.orders.broken = False
    settled, answered = shop.ordering.settle(order)
    assert (settled.status, answered) == (Status.PAID, True)


def test_a_settled_order_is_not_charged_again(shop):
    order, _ = shop.ordering.place(7, 1, 1, None)
    shop.log.clear()
    assert shop.ordering.settle(order) == (order, True)
    assert shop.log == []


def test_two_who_settle_one_order_tell_of_it_once(shop):
    shop.payments.error = DependencyUnavailable("payment-service")
    order, _ = shop.ordering.place(7, 1, 1, None)
    shop.payments.error = None
    assert shop.ordering.settle(order) == shop.ordering.settle(order)
    assert shop.signals.told.count("order_settled") == 1


def test_a_repetition_finds_the_order_and_asks_nobody(shop):
    first, _ = shop.ordering.place(7, 1, 1, "key")
    shop.log.clear()
    assert shop.ordering.place(7, 1, 1, "key") == (first, False)
    assert shop.log == []


def test_a_repetition_that_was_overtaken_finds_the_order_of_the_faster(shop):
    first, _ = shop.ordering.place(7, 1, 1, "key")
    by_key, shop.orders.by_key = shop.orders.by_key, lambda *_: None
    add, shop.orders.add = shop.orders.add, lambda *arguments: setattr(shop.orders, "by_key", by_key) or add(*arguments)
    assert shop.ordering.place(7, 1, 1, "key") == (first, False)


@pytest.mark.parametrize(("product_id", "quantity"), [(2, 1), (1, 2)])
def test_a_key_is_for_one_body(shop, product_id, quantity):
    shop.ordering.place(7, 1, 1, "key")
    with pytest.raises(KeyReused):
        shop.ordering.place(7, product_id, quantity, "key")


def test_an_order_is_for_its_owner_and_for_admins(shop):
    order, _ = shop.ordering.place(7, 1, 1, None)
    assert shop.ordering.read(order.id, user_id=7, is_admin=False) == order
    assert shop.ordering.read(order.id, user_id=1, is_admin=True) == order
    for order_id, user_id in ((order.id, 8), (99, 7)):
        with pytest.raises(OrderNotFound):
            shop.ordering.read(order_id, user_id=user_id, is_admin=False)
