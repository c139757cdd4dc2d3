"""Everything that can happen in the shop, once: what its telemetry says of that is then compared with the contract.

All along, marked secrets are in every place where a client can put something (see `marks`).
"""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.fixtures.services import Client, eventually

HUGE = 50_000


@dataclass
class Walk:
    """What was done.

    Attributes:
        since: When it began, in seconds since the epoch.
        traces: Trace ids of what the contract has a tree for, by the tree's name.
        left_pending: The id of an order that the reconciler had to finish.
        answers: What clients were answered: (what was asked, the text).
    """

    since: float
    traces: dict = field(default_factory=dict)
    left_pending: int = 0
    answers: list = field(default_factory=list)


class Shopper:
    """A client whose every request carries marked headers."""

    def __init__(self, shop, marks, walk):
        self.marks = marks
        self.walk = walk
        self._client = Client(shop.gateway.root)
        self._client.session.headers = {
            "User-Agent": marks("User-Agent"),
            "Cookie": f"session={marks('cookie')}",
            "Referer": f"https://{marks('Referer')}.example/",
            "X-Forwarded-For": marks("X-Forwarded-For"),
            "X-Forwarded-Host": marks("X-Forwarded-Host"),
            "Forwarded": f"for={marks('Forwarded')}",
            "X-Api-Key": marks("X-Api-Key"),
            "X-Request-Id": marks("X-Request-Id"),
            "From": f"{marks('From')}@example.org",
            "baggage": f"user={marks('baggage')}",
            "tracestate": f"shop={marks('tracestate without traceparent')}",
            "Accept-Language": marks("Accept-Language"),
            marks("header name"): "x",
        }

    def __call__(self, method, path, *statuses, token=None, name=None, **kwargs):
        """Ask, and expect one of the statuses; the answer's trace is kept under the name."""
        while (answer := self._client(method, path, token, **kwargs)).status_code == 429:
            time.sleep(0.1)  # logins are limited, and there are more of them here than a person makes
        assert answer.status_code in statuses, f"{method} {path}: {answer.status_code} {answer.text}"
        if answer.status_code >= 400:
            self.walk.answers.append((f"{method} {path.partition('?')[0]}", answer.text))
        if name:
            self.walk.traces[name] = answer.headers["traceresponse"].split("-")[1]
        return answer

    def close(self):
        self._client.session.close()


def walk(shop, marks):
    """Walk all journeys in a shop, in which something breaks in between, and is whole again afterwards."""
    done = Walk(since=time.time() - 1)
    ask = Shopper(shop, marks, done)
    try:
        people = everyday(ask)
        curious(shop, ask, people)
        malformed(shop, marks)
        refused_rows(shop, ask, people)
        broken(shop, ask, people)
    finally:
        ask.close()
    return done


@dataclass(frozen=True)
class People:
    """Who shops: their tokens."""

    admin: str
    customer: str
    name: str
    order: str
    """Path of an order of the customer's."""


def everyday(ask):
    """What the shop is for."""
    marks = ask.marks
    admin = ask("POST", "/auth/login", 200, json={"username": "admin", "password": "password"}).json()["token"]
    name, password = marks("user name")[:32], marks("password")
    user = ask("POST", "/users/", 201, json={"username": name, "password": password}, name="registration").json()
    ask("POST", "/users/", 409, json={"username": name.upper(), "password": password})
    login = ask("POST", "/auth/login", 200, json={"username": name, "password": password}, name="login")
    customer = login.json()["token"]
    for token in (admin, customer):
        for part in token.split(".")[1:]:
            marks.also(part, "token")
    ask("POST", "/auth/login", 401, json={"username": name, "password": marks("wrong password")})
    ask("POST", "/auth/login", 401, json={"username": marks("unknown user"), "password": password})

    ask("GET", "/users/me", 200, token=customer, name="reading oneself")
    ask("GET", f"/users/{user['id']}", 200, token=customer, name="reading a user")
    ask("GET", "/users/", 200, token=admin, name="reading users")
    ask("GET", "/users/", 403, token=customer)
    for path in ("/", "/products/", "/products/1", "/products/?q=mug&limit=2", "/auth/.well-known/jwks.json"):
        ask("GET", path, 200)
    ask("GET", "/products/1", 304, headers={"If-None-Match": ask("GET", "/products/1", 200).headers["ETag"]})
    for prefix in ("auth", "users", "products", "orders", "payments"):
        ask("GET", f"/{prefix}/openapi.json", 200)
    for prefix in ("users", "products", "orders"):
        ask("GET", f"/{prefix}", 308)
    ask("GET", "/auth/validate", 200, token=customer)

    order = ask("POST", "/orders/", 201, json={"product_id": 1}, token=customer, name="order")
    ask("GET", order.headers["Location"], 200, token=customer, name="reading an order")
    ask("GET", f"/payments/{order.json()['payment_id']}", 200, token=customer, name="reading a payment")
    ask("GET", "/orders/", 200, token=customer, name="reading orders")
    ask("POST", "/orders/", 402, json={"product_id": 24}, token=customer)
    key = {"Idempotency-Key": marks("Idempotency-Key")}
    again = {"token": customer, "headers": key}
    ask("POST", "/orders/", 201, json={"product_id": 2}, **again)
    ask("POST", "/orders/", 200, json={"product_id": 2}, **again, name="repeated order")
    ask("POST", "/orders/", 422, json={"product_id": 3}, **again)
    return People(admin, customer, name, order.headers["Location"])


def curious(shop, ask, people):
    """Questions with no good answer, each with something in it that is nobody's business."""
    marks = ask.marks
    token = people.customer
    query = f"{marks('query name')}={marks('query value')}"
    for method, path, statuses in (
        ("GET", f"/{marks('path')}", {404}),
        ("GET", f"/orders/{marks('path of a prefix')}", {404}),
        ("GET", f"/orders/1;{marks('path parameter')}", {404}),
        ("GET", f"/users/{marks.also(marks('path').encode().hex(), 'path in hex')}?{query}", {404}),
        ("GET", f"/users/%2e%2e/{marks('escaped path')}", {404}),
        ("GET", f"/products/9{secrets_digits(marks)}", {404}),
        ("GET", "/products/999999", {404}),
        ("GET", "/orders/999999", {404}),
        ("GET", "/payments/999999", {404}),
        ("GET", "/users/999999", {404}),
        ("POST", "/healthz", {405}),
        ("PUT", "/orders/", {405}),
        ("DELETE", f"{people.order}?{query}", {405}),
        ("HEAD", f"/products/1?{query}", {200}),
        ("OPTIONS", f"/orders/?{query}", {200, 405}),
        ("GET", f"/products?{query}", {308}),
        ("GET", f"/products/?{query}", {422}),
        ("GET", f"/products/?q={marks('search text')}", {200}),
        ("GET", f"/products/?tag={marks('tag')}&limit={marks('limit')}", {422}),
        ("GET", f"/orders/?cursor={marks('cursor')}", {422}),
        ("GET", f"/orders/?access_token={people.customer}", {422}),
        ("GET", f"/orders/?{'x' * 300}={marks('long query') * 100}", {422, 414}),
    ):
        ask(method, path, *statuses, token=token)
    tokens(shop, ask, people)
    bodies(ask, people)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    for headers in (
        {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": f"v={marks('tracestate')}"},
        {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": f"{marks('bad tracestate').upper()}=="},
        {"traceparent": marks("traceparent")},
        {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01-{marks('end of traceparent')}"},
        {"Host": f"{marks('Host')}.example"},
        {"Host": f"{marks('Host')}:{marks('port')}"},
        {"Origin": f"https://{marks('Origin')}", "Access-Control-Request-Method": marks("preflight")},
        {"Range": marks("Range"), "If-None-Match": marks("If-None-Match"), "Accept": marks("Accept")},
        {"X-Long": marks("long header") * 1000},
        {"Expect": marks("Expect")},
        {"Upgrade": marks("Upgrade"), "Connection": "upgrade"},
    ):
        ask("GET", "/products/1", 200, 304, 400, 417, 431, headers=headers)
        ask("GET", "/orders/", 200, 400, 417, 431, token=token, headers=headers)


def secrets_digits(marks):
    """A number of 19 digits that is no id, and could be somebody's card."""
    return marks.also(str(time.time_ns())[::-1][:18].rjust(18, "7"), "number in a path")


def tokens(shop, ask, people):
    """Wrong tokens, and a right one where none belongs."""
    marks = ask.marks

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    head, claims, signature = people.customer.split(".")
    mine = part({"sub": marks("claim of a forged token"), "role": "admin"})
    for place in ("/orders/", "/users/me", "/payments/1", "/auth/validate"):
        for bad in (
            marks("token"),
            f"{head}.{mine}.{signature}",
            f"{part({'alg': 'none', 'kid': marks('kid')})}.{mine}.",
            f"{part({'alg': marks('alg'), 'kid': marks('kid')})}.{claims}.{signature}",
            f"{head}.{claims}.{signature[:-5]}",
            "x" * 3000 + marks("end of a long token"),
        ):
            ask("GET", place, 401, token=bad)
        basic = base64.b64encode(f"{people.name}:{marks('password')}".encode()).decode()
        ask("GET", place, 401, headers={"Authorization": f"Basic {marks.also(basic, 'Basic credentials')}"})
        ask("GET", place, 401, headers={"Authorization": marks("Authorization")})
    for headers in ({"Cookie": f"token={people.customer}"}, {"X-Token": people.customer}):
        ask("GET", "/orders/", 401, headers=headers)
    ask("POST", "/orders/", 422, token=people.customer, json={"product_id": 1, "token": people.customer})
    ask(
        "POST",
        "/orders/",
        422,
        token=people.customer,
        json={"product_id": 1},
        headers={"Idempotency-Key": f"a {marks('key with a space')}"},
    )
    ask(
        "POST",
        "/orders/",
        201,
        token=people.customer,
        json={"product_id": 1},
        headers={"Idempotency-Key": marks.also(signature[:250], "Idempotency-Key")},
    )


def bodies(ask, people):
    """Bodies that are not what was asked for."""
    marks = ask.marks
    for path, field_name in (("/auth/login", "password"), ("/users/", "password"), ("/orders/", "product_id")):
        token = people.customer if path == "/orders/" else None
        login = {} if path == "/orders/" else {"username": "grace", "password": marks("password")}
        for body in (
            {field_name: marks(f"value of {field_name}")},
            {field_name: {"a": [{"b": marks("nested value")}]}},
            {field_name: [marks("list")]},
            {**login, "product_id": 1, marks("field name"): marks("value of an unknown field")},
            {**login, "username": f"{marks('e-mail')}@example.org", "product_id": -1},
            [marks("list instead of an object")],
            marks("text instead of an object"),
            {**login, "product_id": 10**30, "password": marks("huge") * (HUGE // 20)},
            {**login, "username": f"\x00{marks('control characters')}"},
        ):
            ask("POST", path, 422, 401, token=token, json=body)
        for content_type, text in (
            ("application/json", f'{{"{marks("broken JSON")}": '),
            ("application/json", b"\xff\xfe" + marks("no UTF-8").encode()),
            ("application/x-www-form-urlencoded", f"password={marks('form')}"),
            ("text/plain", marks("plain text")),
            (f"application/{marks('content type')}", "{}"),
            (f"multipart/form-data; boundary={marks('boundary')}", marks("part")),
        ):
            headers = {"Content-Type": content_type}
            ask("POST", path, 400, 415, 422, token=token, data=text, headers=headers)
        headers = {"Content-Type": "application/json", "Content-Encoding": marks("Content-Encoding")}
        ask("POST", path, 400, 415, token=token, data="{}", headers=headers)
        ask("POST", path, 413, token=token, data=(marks("too large") * 5000).encode())


def malformed(shop, marks):
    """What is no HTTP, or hardly; at the gateway, and at the services' own doors where they are open."""
    for door in shop.doors():

        def raw(template, door=door, **places):
            values = {key: marks(place).encode() for key, place in places.items()}
            shop.raw(template % {key.encode(): value for key, value in values.items()}, door)

        raw(b"GET /orders/?q=%(q)s HTTP/1.1\r\nHost: %(h)s\r\nHost: y\r\n\r\n", q="query", h="one of two Hosts")
        raw(b"GET /orders/ HTTP/1.1\r\nHost: %(h)s.example\r\nConnection: close\r\n\r\n", h="Host of another")
        for route in (b"charges", b"credentials", b"token"):
            internal = b"POST /internal/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % route
            raw(internal + b"Authorization: Bearer %(v)s\r\n\r\n", v="service's token")
            raw(internal + b"Authorization: Basic %(v)s\r\n\r\n", v="client's secret")
        raw(b"%(a)s %(b)s %(c)s\r\n\r\n", a="method", b="target", c="version")
        raw(b"GET /%(p)s%%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", p="path with a broken escape")
        raw(b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %(l)s\r\n\r\n", l="Content-Length")
        raw(b"GET /%(p)s\r\n", p="path of HTTP/0.9")
        raw(b"GET http://%(h)s/orders/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", h="absolute target")
        raw(b"CONNECT %(h)s:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", h="CONNECT")
        raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n%(n)s : y\r\n\r\n", n="header name with a space")
        raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00%(v)s\r\n\r\n", v="header with NUL")
        raw(b"GET /?\xff%(v)s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", v="byte that is no ASCII")
        coded = b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: %(v)s\r\n\r\n0\r\n\r\n"
        raw(coded, v="Transfer-Encoding")
        chunked = b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        chunked += b"Transfer-Encoding: chunked\r\n\r\n"
        raw(chunked + b"%(v)s\r\n", v="chunk size")
        raw(chunked + b"5;%(v)s\r\n", v="chunk extension")
        raw(b"GET / HTTP/9.%(v)s\r\nHost: localhost\r\n\r\n", v="version")
        raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%(v)s", v="HTTP/2 preface")
        raw(b"\x16\x03\x01\x00\xa5%(v)s", v="TLS")
        raw(b"GET /" + b"a" * 9000 + b"%(v)s HTTP/1.1\r\nHost: localhost\r\n\r\n", v="long target")
        raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-%(v)s: y\r\n" * 200 + b"\r\n", v="many headers")
        method = marks("method").upper().encode()
        for path in (b"/orders/", b"/" + marks("path of a made-up method").encode()):
            shop.raw(b"%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method, path), door)
        body = marks("body that never ends").encode()
        shop.raw(b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n" + body, door, patience=0.1)


def refused_rows(shop, ask, people):
    """Rows that the database refuses, quoting all of them in its error."""
    marks = ask.marks
    name, key = marks("user name that is refused"), marks("Idempotency-Key that is refused")
    rules = (
        ("users.users", f"username <> '{name}'"),
        ("orders.orders", f"idempotency_key <> '{key}'"),
        ("payments.payments", "amount_minor <> 2 * 1450"),
    )
    for table, rule in rules:
        shop.query(f"ALTER TABLE {table} ADD CONSTRAINT canary CHECK ({rule}) NOT VALID; SELECT 1")
    try:
        ask("POST", "/users/", 500, json={"username": name, "password": marks("password")})
        order = {"json": {"product_id": 1}, "token": people.customer}
        ask("POST", "/orders/", 500, **order, headers={"Idempotency-Key": key})
        charged = {"json": {"product_id": 1, "quantity": 2}, "token": people.customer}
        key = {"Idempotency-Key": marks("Idempotency-Key")}
        left = ask("POST", "/orders/", 202, **charged, headers=key, name="left pending")
    finally:
        for table, _ in rules:
            shop.query(f"ALTER TABLE {table} DROP CONSTRAINT canary; SELECT 1")
    ask.walk.left_pending = left.json()["id"]


def broken(shop, ask, people):
    """Parts that stand still, one or two at a time."""
    marks = ask.marks
    order = {"json": {"product_id": 1}, "token": people.customer}

    def keyed(place):
        return {"headers": {"Idempotency-Key": marks(place)}}

    with ThreadPoolExecutor(8) as pool:

        def at_once(*requests):
            for asked in [pool.submit(ask, *one, **more) for one, more in requests]:
                asked.result()

        with shop.frozen("payment-service", "user-service"):
            secret = {"username": marks("user while user-service is frozen"), "password": marks("password")}
            at_once(
                (("POST", "/orders/", 202), {**order, **keyed("key while payment-service is frozen")}),
                (("POST", "/auth/login", 503), {"json": secret}),
            )
        # It thaws and makes the charge that nobody waits for any more; what asks again will find it repeated.
        charged = "SELECT 1 FROM payments.payments WHERE order_id = (SELECT max(id) FROM orders.orders)"
        eventually(lambda: shop.query(charged))
        with shop.frozen("order-db"):
            secret = {"username": marks("user while the database is frozen"), "password": marks("password")}
            at_once(
                (("GET", people.order, 503), {"token": people.customer}),
                (("GET", "/users/me", 503), {"token": people.customer}),
                (("GET", "/payments/1", 503), {"token": people.customer}),
                (("POST", "/users/", 503), {"json": secret}),
                (("POST", "/orders/", 503), {**order, **keyed("key while the database is frozen")}),
            )
            failed = '{service_name="order-service"} |= "task.failed"'
            eventually(lambda: shop.lines(failed, ask.walk.since), pause=0.2)
        with shop.frozen("product-service", "auth-service"):
            at_once((("POST", "/orders/", 503), {**order, **keyed("key while product-service is frozen")}))
            list(pool.map(lambda path: _until_unavailable(ask, path), ("/orders/", "/users/me", "/payments/1")))
    eventually(lambda: shop.query("SELECT count(*) FROM orders.orders WHERE status = 'PENDING'") == [(0,)], 30, 0.1)


def _until_unavailable(ask, path):
    """Ask with a token of an unknown key until its service looks for new keys: it does so every 10 s at most."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": ask.marks("unknown kid")}).encode())
    token = f"{head.rstrip(b'=').decode()}.e30.e30"
    eventually(lambda: ask("GET", path, 401, 503, token=token).status_code == 503, 15, pause=0.5)
