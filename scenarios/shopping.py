"""Simulated customers who place orders at a given rate, and the answers that they get."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

import requests

from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from scenarios.describing import Load, Of

_TIMEOUT = 20
_READS_AN_ORDER, _READS_A_PRODUCT, _LOGS_IN = 2, 2, 6  # once per this many orders
_REGISTER_TRIES = 3
_ACCOUNTS = 4
_RENEWED_SECONDS = 1500
_DEMO = {"username": "admin", "password": "password"}


@dataclass(frozen=True)
class Answer:
    """An answer that a customer got.

    Attributes:
        at: Its time (monotonic).
        route: Method and route.
        product: The product's id, 0 if it was not about a product.
        demo_login: Whether the demo login sent the request.
        status: The status, 0 if no answer came.
        seconds: How long it took.
        trace_id: The trace's id.
    """

    at: float
    route: str
    product: int
    demo_login: bool
    status: int
    seconds: float
    trace_id: str


class Customers:
    """A context manager for a few customers who order at a constant rate.

    The rate does not depend on how long answers take, as long as a customer is free.

    Args:
        gateway: The root of the shop's API.
        load: Their load.
        seed: Makes their choices reproducible.

    Attributes:
        since: The time since which they have the current load (monotonic).
    """

    def __init__(self, gateway: str, load: Load, seed: int = 1) -> None:
        self._gateway = gateway
        self._load = load
        self._random = random.Random(seed)
        self._answers: deque[Answer] = deque(maxlen=100_000)
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._next = time.monotonic()
        self._numbers = itertools.count(1)
        self._run, self._password = secrets.token_hex(4), secrets.token_urlsafe(16)  # random: nobody else can log in
        self._tokens: list[str] = []
        self._renew: list[float] = []
        self._threads: dict[int, threading.Thread] = {}
        self.since = time.monotonic()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def change(self, load: Load) -> None:
        """Change their load from now on. Customers who wait for an answer finish that request first."""
        if load != self._load:
            self._load = load
            self._begin()

    def _begin(self) -> None:
        while len(self._tokens) < min(self._load.customers, _ACCOUNTS):
            self._tokens.append(self._token(len(self._tokens)))
            self._renew.append(time.monotonic() + _RENEWED_SECONDS)
        for number in range(self._load.customers):
            if number not in self._threads or not self._threads[number].is_alive():
                self._threads[number] = threading.Thread(target=self._buy, args=(number,), daemon=True)
                self._threads[number].start()
        self.since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads.values():
            thread.join()

    def between(self, since: float, until: float, of: Of | None = None) -> list[Answer]:
        """Return the answers between two times, to all requests or to those that `of` selects."""
        found = [answer for answer in list(self._answers) if since <= answer.at < until]
        return found if of is None else [answer for answer in found if _is(of, answer)]

    def _token(self, number: int) -> str:
        """Log in: the first with the demo login, the others as customers that are registered for this run."""
        with _session() as session:
            name = f"scenario-{self._run}-{number}" if number else _DEMO["username"]
            password = self._password if number else _DEMO["password"]
            body = {"username": name, "password": password}
            if number:
                session.post(f"{self._gateway}/users/", json=body, timeout=_TIMEOUT)  # 409 if the user exists
            for _ in range(_REGISTER_TRIES):
                answer = session.post(f"{self._gateway}/auth/login", json=body, timeout=_TIMEOUT)
                if answer.status_code == HTTPStatus.OK:
                    return str(answer.json()["token"])
                time.sleep(1)
        raise ScenarioError(f"The customer {name} cannot log in (status {answer.status_code}): is the shop well?")

    def _fresh(self, account: int) -> str:
        """Return an account's token. It is renewed before it expires, since a measurement may take hours."""
        if time.monotonic() > self._renew[account]:
            self._renew[account] = time.monotonic() + _RENEWED_SECONDS
            with contextlib.suppress(ScenarioError, requests.RequestException):  # a fault: keep the old token
                self._tokens[account] = self._token(account)
        return self._tokens[account]

    def _buy(self, customer: int) -> None:
        account = customer % len(self._tokens)
        demo_login = account == 0
        with _session() as session:
            while not self._stopping.is_set() and customer < self._load.customers:
                with self._turn:
                    product = self._random.choice(self._load.products)
                    number = next(self._numbers)
                    wait = self._next - time.monotonic()
                    self._next = max(self._next, time.monotonic() - 1) + 1 / self._load.orders
                if self._stopping.wait(max(0.0, wait)):
                    return
                session.headers["Authorization"] = f"Bearer {self._fresh(account)}"
                placed = self._ask(session, "POST", "/orders/", demo_login, product, json={"product_id": product})
                if number % _READS_AN_ORDER == 0 and placed:
                    self._ask(session, "GET", "/orders/{order_id}", demo_login, order_id=placed)
                if number % _READS_A_PRODUCT == 0:
                    self._ask(session, "GET", "/products/{product_id}", demo_login, product, product_id=product)
                if number % _LOGS_IN == 0:
                    self._ask(session, "POST", "/auth/login", demo_login, json=_DEMO)

    def _ask(  # noqa: PLR0913, PLR0917  # all are needed for a request
        self,
        session: requests.Session,
        method: str,
        route: str,
        demo_login: bool,  # noqa: FBT001
        product: int = 0,
        json: Any = None,
        **ids: int,
    ) -> int:
        """Send a request and record the answer; return the order's number, if it is an order."""
        status, trace_id, order = 0, "", 0
        began = time.monotonic()
        try:
            answer = session.request(method, self._gateway + route.format(**ids), json=json, timeout=_TIMEOUT)
            status = answer.status_code
            trace_id = answer.headers.get("traceresponse", "--").split("-")[1]
            if route == "/orders/" and status in {HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
                order = int(answer.json()["id"])
        except (requests.RequestException, ValueError, KeyError):
            status = 0
        ended = time.monotonic()
        self._answers.append(Answer(ended, f"{method} {route}", product, demo_login, status, ended - began, trace_id))
        return order


def p95(answers: list[Answer]) -> float:
    """Return the 95th percentile of the durations, in seconds."""
    seconds = [answer.seconds for answer in answers]
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else sum(seconds)


def share(answers: list[Answer], *statuses: int) -> float:
    """Return the share of answers with these statuses."""
    return sum(answer.status in statuses for answer in answers) / len(answers) if answers else 0.0


def failed(answers: list[Answer]) -> float:
    """Return the share of requests that failed: with a 5xx, or without an answer."""
    bad = [answer for answer in answers if not answer.status or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR]
    return len(bad) / len(answers) if answers else 0.0


def _is(of: Of, answer: Answer) -> bool:
    return (
        answer.route == of.route
        and (of.products is None or answer.product in of.products)
        and (of.demo_login is None or answer.demo_login == of.demo_login)
    )


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session
