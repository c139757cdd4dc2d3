"""The shop's and its telemetry's APIs, as the pages ask them. Every address that is asked stands here.

There is no way for a browser to choose a host or a path: it gives values, which are escaped, and put where they belong.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from observability.story.asking import ASK_SECONDS, Answer, ask
from observability.story.errors import LoginNeeded, StoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from observability.story.apis import Jaeger, Loki, Prometheus

_DEMO = {"username": "admin", "password": "password"}
_PLACING_SECONDS = 10.0
"""Payment alone may take three, and a stock that others want more."""
_MOST_ORDERS = 50
_MOST_PRODUCTS = 100


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

    def check(self, token: str, *, off: bool) -> None:
        """Let whoever has a token of the shop go on; where the demo user may, everybody.

        Where the demo user may, the shop is not asked before something is switched off: that may be why it does not
        answer.

        Args:
            token: Whose.
            off: Whether things are only to be switched off.

        Raises:
            LoginNeeded: Nobody has signed in.
            StoryError: The shop does not say whether it takes the token.
        """
        if self._demo and off:
            try:
                self._demo_token("")
            except LoginNeeded:
                if not token:
                    raise
            except StoryError:
                return
            else:
                return
        _listed("orders", self._call(token, "/orders/", {"limit": "1"}))

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


def now() -> float:
    """Give the time, so that tests can set it."""
    return time.time()


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
