"""What users do: who they are, what they ask for, and what counts as a right answer."""

from __future__ import annotations

import random
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from locust import FastHttpUser

from loadtest.records import Attempt
from loadtest.tokens import Token, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.metrics import LoadTestMetrics
    from loadtest.records import Collected

CHEAP_PRODUCTS = range(1, 21)
"""Always paid, as long as no fault is set."""

DEAR_PRODUCT = 24
"""Above payment's limit: declined."""

NO_PRODUCT = 999_999

_UNAUTHORIZED, _PAYMENT_REQUIRED = 401, 402
_ORDERED = {200, 201, 202, _PAYMENT_REQUIRED}
_CLIENT_ERRORS = range(400, 500)


class Shopper(FastHttpUser):
    """A user with a token and a connection of its own. `locustfile.py` says how often each journey is made."""

    abstract = True
    network_timeout = 20.0  # longer than the gateway's patience with a service, which has an answer of its own
    connection_timeout = 5.0

    # Of the process; locustfile.py sets them.
    tokens: ClassVar[Tokens]
    collected: ClassVar[Collected]
    metrics: ClassVar[LoadTestMetrics]
    traced_share: ClassVar[float]
    credentials: ClassVar[dict[str, str]]

    _token: Token | None = None

    def browse(self) -> None:
        """Look at the list of products, and at one of them."""
        self._ask("GET", "/products/")
        self._ask("GET", "/products/{product_id}", product_id=_some_product())

    def order(self) -> None:
        """Buy something cheap, and look at the order."""
        attempt = self._order(_some_product(), "/orders/", {201, 202})
        if attempt and attempt.order_id is not None:
            self._ask("GET", "/orders/{order_id}", authorized=True, order_id=attempt.order_id)

    def history(self) -> None:
        """List the newest orders."""
        self._ask("GET", "/orders/", query="?limit=20", authorized=True)

    def decline(self) -> None:
        """Buy something that is too dear."""
        self._order(DEAR_PRODUCT, "/orders/ (declined)", {_PAYMENT_REQUIRED, 202})

    def mistake(self) -> None:
        """Do one of the things that are refused."""
        random.choice((self._no_such_product, self._bad_quantity, self._no_token))()

    def _no_such_product(self) -> None:
        body = {"product_id": NO_PRODUCT}
        self._ask("POST", "/orders/", "/orders/ (no such product)", {404}, authorized=True, json=body)

    def _bad_quantity(self) -> None:
        body = {"product_id": 1, "quantity": 0}
        self._ask("POST", "/orders/", "/orders/ (bad quantity)", {422}, authorized=True, json=body)

    def _no_token(self) -> None:
        self._ask("POST", "/orders/", "/orders/ (no token)", {_UNAUTHORIZED}, json={"product_id": 1})

    def _order(self, product_id: int, name: str, right: set[int]) -> Attempt | None:
        """Place an order with a key, and write down what came back, whatever happens; None if it was not sent."""
        token = self._authorization()
        if not token:
            return None
        attempt = Attempt(f"{self._run_id()}-{uuid.uuid4()}", product_id, 1, "unanswered")
        try:
            answer = self._ask(
                "POST",
                "/orders/",
                name,
                right,
                headers={**token, "Idempotency-Key": attempt.key},
                json={"product_id": product_id, "quantity": attempt.quantity},
            )
            attempt = _answered(attempt, answer)
        finally:  # also when the run ends before the answer
            self.collected.attempts.append(attempt)
        if attempt.status:
            self.metrics.order(attempt.status)
        return attempt

    def _ask(  # noqa: PLR0913  # a request has so many sides
        self,
        method: str,
        route: str,
        name: str = "",
        right: set[int] | None = None,
        *,
        authorized: bool = False,
        headers: dict[str, str] | None = None,
        query: str = "",
        json: dict[str, Any] | None = None,
        **ids: int,
    ) -> Any:
        """Send a request and judge the answer; a name other than the route's is of what is refused on purpose."""
        sent = dict(headers or {})
        if authorized:
            sent |= self._authorization()
            if not sent:
                return None
        context = {"route": route, "expected": bool(name) and name != route, "trace_id": ""}
        if random.random() < self.traced_share:
            context["trace_id"] = uuid.uuid4().hex
            sent["traceparent"] = f"00-{context['trace_id']}-{uuid.uuid4().hex[:16]}-01"
        with self.client.request(
            method,
            route.format(**ids) + query,
            name=name or route,
            headers=sent,
            json=json,
            context=context,
            catch_response=True,
        ) as answer:
            if answer.status_code in (right or {200}):
                answer.success()
            elif answer.status_code:
                answer.failure(_kind(answer))
            if answer.status_code == _UNAUTHORIZED and sent.get("Authorization"):
                self._token = None  # the signing keys are new, or it has expired
            return answer

    def _authorization(self) -> dict[str, str]:
        """Give the header with the user's token; nothing when it cannot log in."""
        if not self._token or not self._token.good():
            self._token = self.tokens.take(self._log_in)
        return {"Authorization": f"Bearer {self._token.text}"} if self._token else {}

    def _log_in(self) -> Token | None:
        answer = self._ask("POST", "/auth/login", json=self.credentials)
        body = _json(answer) if answer.status_code == HTTPStatus.OK else {}
        if "token" not in body:
            return None
        return Token(body["token"], time.monotonic() + 0.9 * body["expires_in"])

    def _run_id(self) -> str:
        return str(self.environment.parsed_options.run_id)


def journey(name: str) -> Callable[[Shopper], None]:
    """Give a journey as what Locust calls a task."""
    task: Callable[[Shopper], None] = getattr(Shopper, name)
    return task


def _some_product() -> int:
    return random.choice(CHEAP_PRODUCTS)


def _answered(attempt: Attempt, answer: Any) -> Attempt:
    """Say of an attempt what came back."""
    body = _json(answer) if answer.status_code in _ORDERED else {}
    order = body.get("order", body)  # a decline is a problem, with the order inside
    if "id" in order:
        return Attempt(attempt.key, attempt.product_id, attempt.quantity, "told", order["id"], order["status"])
    refused = answer.status_code in _CLIENT_ERRORS
    return Attempt(attempt.key, attempt.product_id, attempt.quantity, "refused" if refused else "unanswered")


def _kind(answer: Any) -> str:
    """Say in a few words what a wrong answer was: the status, and the kind of problem that its body names."""
    problem = str(_json(answer).get("type", "")).rpartition("/")[2].rpartition(":")[2]
    return f"answered with {answer.status_code} {problem}".strip()


def _json(answer: Any) -> dict[str, Any]:
    """Read an answer's body; nothing if it was cut off."""
    try:
        body = answer.json()
    except (ValueError, TypeError):
        return {}
    return body if isinstance(body, dict) else {}
