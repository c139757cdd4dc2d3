"""The shop's and its telemetry's APIs, as the pages ask them. Every address that is asked stands here.

There is no way for a browser to choose a host or a path: it gives values, which are escaped, and put where they belong.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote

from observability.story.asking import ASK_SECONDS, Answer, ask
from observability.story.backends import NOT_UNDERSTOOD, oldest_first, understood
from observability.story.errors import StoryError
from servicekit.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from observability.console.window import Window
    from observability.story.backends import Line

_T = TypeVar("_T")
_U = TypeVar("_U")

_DEMO = {"username": "admin", "password": "password"}
_WORKERS = 8
_PLACING_SECONDS = 10.0
"""Payment alone may take three, and a stock that others want more."""
_MOST_ORDERS = 50
_MOST_PRODUCTS = 100


class LoginNeeded(StoryError):
    """The gateway wants to know who is there."""


class Refused(StoryError):
    """An API does not take a question. The message is its own."""


class Orders:
    """The shop's gateway, as one user.

    Args:
        gateway: Its root.
        demo: Whether to sign in as the demo user if the browser has no token.
    """

    def __init__(self, gateway: str, *, demo: bool) -> None:
        self._gateway, self._demo = gateway, demo
        self._token = ""
        self._lock = threading.Lock()

    def login(self, username: str, password: str) -> str:
        """Give a token.

        Raises:
            LoginNeeded: The gateway does not let this user in.
            StoryError: It does not say whether it does.
        """
        url = f"{self._gateway}/auth/login"
        answer = ask("The gateway", url, method="POST", body={"username": username, "password": password})
        said = answer.json()
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise LoginNeeded(f"The shop does not let {username} in: {_reason(answer)}")
        if answer.status != HTTPStatus.OK or not isinstance(said, dict) or "token" not in said:
            raise StoryError(f"The shop lets nobody sign in ({answer.status}): {_reason(answer)}")
        return str(said["token"])

    def newest(self, token: str, cursor: str = "") -> dict[str, Any]:
        """Give a page of orders, newest first, as the shop answers it."""
        fields = {"limit": str(_MOST_ORDERS), **({"cursor": cursor} if cursor else {})}
        return _listed("orders", self._call(token, "/orders/", fields))

    def one(self, token: str, order_id: int) -> dict[str, Any]:
        """Give an order. Raises StoryError if there is none."""
        answer = self._call(token, f"/orders/{order_id:d}")
        if answer.status == HTTPStatus.NOT_FOUND:
            raise StoryError(f"There is no order {order_id}.")
        said = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(said, dict):
            raise StoryError(f"The shop does not show order {order_id} ({answer.status}): {_reason(answer)}")
        return said

    def place(self, token: str, product_id: int, quantity: int, key: str) -> int:
        """Place an order, and give its id; the same key gives the same order.

        Raises:
            StoryError: There is no order of it, or nobody knows.
        """
        answer = self._call(token, "/orders/", body={"product_id": product_id, "quantity": quantity}, key=key)
        said = answer.json()
        order = said.get("order", said) if isinstance(said, dict) else None
        if not isinstance(order, dict) or not isinstance(order.get("id"), int):
            raise StoryError(f"The shop took no order ({answer.status}): {_reason(answer)}")
        return int(order["id"])

    def products(self) -> list[dict[str, Any]]:
        """Give what can be bought, by id."""
        answer = ask("The gateway", f"{self._gateway}/products/", {"limit": str(_MOST_PRODUCTS)})
        return sorted(_listed("products", answer)["items"], key=lambda product: product["id"])

    def _call(
        self, token: str, path: str, fields: Mapping[str, str] | None = None, body: object = None, key: str = ""
    ) -> Answer:
        method, seconds = ("GET", ASK_SECONDS) if body is None else ("POST", _PLACING_SECONDS)
        refused = ""
        for _ in range(1 if token else 2):  # the demo user's may have expired, or the keys have changed
            bearer = token or self._demo_token(refused)
            answer = ask(
                "The gateway",
                self._gateway + path,
                fields,
                method=method,
                headers={"Authorization": f"Bearer {bearer}"} | ({"Idempotency-Key": key} if key else {}),
                body=body,
                seconds=seconds,
            )
            if answer.status != HTTPStatus.UNAUTHORIZED:
                return answer
            refused = bearer
        raise LoginNeeded("Please sign in: the shop does not take the token any more.")

    def _demo_token(self, refused: str) -> str:
        """Give the demo user's token, which all pages share; a new one instead of one that was refused."""
        if not self._demo:
            raise LoginNeeded("Please sign in.")
        if not self._lock.acquire(timeout=ASK_SECONDS):
            raise StoryError("The gateway takes too long to let the console sign in.")
        try:
            if self._token in {"", refused}:
                self._token = ""
                self._token = self.login(**_DEMO)
            return self._token
        finally:
            self._lock.release()


@dataclass(frozen=True)
class Prometheus:
    """Prometheus' HTTP API."""

    root: str

    def now(self, query: str) -> list[dict[str, Any]]:
        """Give the series of an instant query."""
        return self._result("/api/v1/query", {"query": query})

    def over(self, query: str, window: Window, step: int) -> list[dict[str, Any]]:
        """Give the series of a query over time."""
        return self._result("/api/v1/query_range", {"query": query, **window.seconds(), "step": str(step)})

    def exemplars(self, query: str, window: Window) -> list[dict[str, Any]]:
        """Give the traces that histograms name."""
        found: list[dict[str, Any]] = self._ask("/api/v1/query_exemplars", {"query": query, **window.seconds()}) or []
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Give the alerts that are pending or fire."""
        found: list[dict[str, Any]] = self._ask("/api/v1/alerts", {})["alerts"]
        return found

    def label_values(self, label: str, selector: str) -> list[str]:
        """Give the values of a label."""
        found: list[str] = self._ask(f"/api/v1/label/{quote(label, safe='')}/values", {"match[]": selector}) or []
        return found

    def _result(self, path: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        data = self._ask(path, fields)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def _ask(self, path: str, fields: Mapping[str, str]) -> Any:
        answer = ask("Prometheus", self.root + path, fields)
        said = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(said, dict):
            reason = said["error"] if isinstance(said, dict) and "error" in said else answer.text()
            raise _not_answered("Prometheus", self.root, answer, str(reason))
        return said["data"]


@dataclass(frozen=True)
class Loki:
    """Loki's HTTP API."""

    root: str
    public: str
    """The same, as the reader's machine reaches it."""
    path: ClassVar[str] = "/loki/api/v1/query_range"

    @staticmethod
    def fields(query: str, window: Window, *, limit: int = 200, step: int = 0) -> dict[str, str]:
        """Give the parameters of a query over time."""
        return {"query": query, **window.nanoseconds(), "limit": str(limit)} | ({"step": str(step)} if step else {})

    def query(self, query: str, window: Window, *, limit: int = 200, step: int = 0) -> dict[str, Any]:
        """Give `resultType` and `result` of a query over time, newest lines first.

        Raises:
            Refused: The query is wrong; the message says where.
        """
        answer = ask("Loki", self.root + self.path, self.fields(query, window, limit=limit, step=step))
        said = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(said, dict):
            raise _not_answered("Loki", self.root, answer, answer.text())
        with understood("Loki"):
            return {name: said["data"][name] for name in ("resultType", "result")}

    def lines(self, query: str, window: Window, *, limit: int = 200) -> list[Line]:
        """Give the lines that a query finds, newest first."""
        return oldest_first(self.query(query, window, limit=limit)["result"])[::-1]


@dataclass(frozen=True)
class Jaeger:
    """Jaeger's HTTP API."""

    root: str
    public: str
    """The same, as the reader's machine reaches it."""

    def services(self) -> list[str]:
        """Give the services that have sent spans."""
        return sorted(self._ask("/api/services", {}) or [])

    def operations(self, service: str) -> list[str]:
        """Give the names of a service's spans."""
        return sorted({one["name"] for one in self._ask("/api/operations", {"service": service}) or []})

    def search(self, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        """Give the traces that a search finds."""
        return self._ask("/api/traces", {name: value for name, value in fields.items() if value}) or []

    def calls(self, window: Window) -> list[dict[str, Any]]:
        """Give who calls whom."""
        fields = {"endTs": str(int(window.end * 1000)), "lookback": str(int((window.end - window.start) * 1000))}
        return self._ask("/api/dependencies", fields) or []

    def _ask(self, path: str, fields: Mapping[str, str]) -> Any:
        answer = ask("Jaeger", self.root + path, fields)
        said = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(said, dict):
            errors = said.get("errors") if isinstance(said, dict) else None
            reason = errors[0]["msg"] if errors else answer.text()
            raise _not_answered("Jaeger", self.root, answer, str(reason))
        return said["data"]


@dataclass(frozen=True)
class Apis:
    """All that the pages ask."""

    orders: Orders
    jaeger: Jaeger
    loki: Loki
    prometheus: Prometheus


@dataclass(frozen=True)
class Shop:
    """The shop as the story's teller wants it, for one browser."""

    apis: Apis
    token: str

    @property
    def jaeger(self) -> str:
        """The root of Jaeger's API."""
        return self.apis.jaeger.root

    @property
    def loki(self) -> str:
        """The root of Loki's API."""
        return self.apis.loki.root

    def row(self, order_id: int) -> dict[str, Any]:
        """Give an order as the gateway shows it."""
        return self.apis.orders.one(self.token, order_id)


def attempt(errors: list[str], make: Callable[[], _T], otherwise: Callable[[], Any], *leave: type[StoryError]) -> _T:
    """Ask, and read the answer; where that fails, note why once, and let the rest of the page go on.

    Args:
        errors: Where to note it.
        make: What to do.
        otherwise: What to go on with.
        leave: What the caller handles itself.

    Raises:
        LoginNeeded: The reader has to sign in first.
    """
    passed_on: tuple[type[StoryError], ...] = (LoginNeeded, *leave)
    try:
        return make()
    except passed_on:
        raise
    except StoryError as error:
        said = str(error)
    except NOT_UNDERSTOOD as error:  # an API of another version, or something else at its port
        get_logger().warning("answer.not_understood", exc_info=error)
        said = f"An answer has an unknown form ({type(error).__name__}): the console's log says more."
    if said not in errors:
        errors.append(said)
    empty: _T = otherwise()
    return empty


def together(function: Callable[[_T], _U], things: Iterable[_T]) -> Sequence[_U]:
    """Do it to all, some at a time, and give the results in their order; the limits of the request hold for all."""
    with ThreadPoolExecutor(_WORKERS) as workers:
        waiting = [workers.submit(copy_context().run, function, each) for each in things]
        return [each.result() for each in waiting]


def now() -> float:
    """Give the time, so that tests can set it."""
    return time.time()


def _not_answered(who: str, root: str, answer: Answer, reason: str) -> StoryError:
    """Tell a question that is wrong from an API that is down."""
    if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return Refused(reason)
    return StoryError(f"{who}'s API at {root} answers {answer.status}: {reason or 'no reason is given'}")


def _reason(answer: Answer) -> str:
    said = answer.json()
    reason = (said.get("detail") or said.get("title")) if isinstance(said, dict) else None
    return str(reason or answer.text() or "no reason is given")


def _listed(what: str, answer: Answer) -> dict[str, Any]:
    """Read a page of a list: what is no list is told, and is not an empty one."""
    said = answer.json()
    if answer.status != HTTPStatus.OK or not isinstance(said, dict) or not isinstance(said.get("items"), list):
        raise StoryError(f"The shop does not show its {what} ({answer.status}): {_reason(answer)}")
    return said
