"""Light load: everything that a dashboard shows, about once a second, for as long as it is watched."""

import base64
import itertools
import json
import threading
import time

from tests.fixtures.services import Client

RECORDED = {"/auth/login", "/products/", "/products/{product_id}", "/orders/", "/orders/{order_id}"}


class Shopping:
    """People in the shop, in a thread, until `stop`.

    Args:
        root: The gateway's.
        metrics: The load test's, if it is to look as if one ran.
    """

    def __init__(self, root, metrics=None):
        self._client = Client(root)
        self._metrics = metrics
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._shop, daemon=True)
        self.faults = []
        self._thread.start()

    def stop(self):
        self._stopped.set()
        self._thread.join()
        self._client.session.close()
        assert not self.faults, self.faults

    def _shop(self):
        if self._metrics:
            self._metrics.users.set(1)
        for visit in itertools.count():
            if self._stopped.wait(0.3):
                return
            try:
                self._visit(visit)
            except Exception as error:  # noqa: BLE001  # said when it is stopped
                self.faults.append(repr(error))
                return

    def _visit(self, number):
        ask = self._ask
        body = {"username": "admin", "password": "password"}
        token = ask("POST", "/auth/login", 200, json=body).json()["token"]
        ask("POST", "/auth/login", 401, json=body | {"password": "wrong"})
        user = {"username": f"shopper-{time.time_ns()}-{number}", "password": "a-long-password"}
        if number % 5 == 0:
            ask("POST", "/users/", 201, json=user)
        ask("GET", "/auth/validate", 200, token=token)
        ask("GET", "/auth/.well-known/jwks.json", 200)
        ask("GET", "/users/me", 200, token=token)
        ask("GET", "/users/", 200, token=token)
        ask("GET", "/users/1", 200, token=token)
        ask("GET", "/users/999999", 404, token=token, route="/users/{user_id}")
        ask("GET", "/products/", 200)
        ask("GET", "/products/1", 200, route="/products/{product_id}")
        ask("GET", "/products/999999", 404, route="/products/{product_id}")
        order = ask("POST", "/orders/", 201, token=token, json={"product_id": 1}).json()
        ask("POST", "/orders/", 402, token=token, json={"product_id": 24})
        ask("GET", "/orders/", 200, token=token)
        ask("GET", f"/orders/{order['id']}", 200, token=token, route="/orders/{order_id}")
        ask("GET", "/orders/999999", 404, token=token, route="/orders/{order_id}")
        ask("GET", f"/payments/{order['payment_id']}", 200, token=token)
        ask("GET", "/payments/999999", 404, token=token)
        ask("GET", "/nowhere", 404)
        for path in ("/users/me", "/orders/", "/payments/1"):  # for which a service asks for new keys, at times
            ask("GET", path, 401, token=_of_unknown_key(token), route=f"{path}, refused")

    def _ask(self, method, path, status, token=None, route=None, **body):
        began = time.monotonic()
        answer = self._client(method, path, token, **body)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        route = route or path
        if self._metrics and route in RECORDED:
            outcome = "ok" if status < 400 else "expected"
            trace_id = answer.headers["traceresponse"].split("-")[1]
            self._metrics.request(method, route, outcome, time.monotonic() - began, trace_id)
            if (method, route) == ("POST", "/orders/"):
                self._metrics.order(answer.json()["status"] if status == 201 else "DECLINED")
        return answer


def _of_unknown_key(token):
    _, claims, signature = token.split(".")
    header = json.dumps({"alg": "RS256", "typ": "JWT", "kid": "unknown"}).encode()
    return ".".join((base64.urlsafe_b64encode(header).decode().rstrip("="), claims, signature))
