"""A shop in which one thing after the other breaks, and what Prometheus said meanwhile."""

import contextlib
import json
import threading
import time
from collections import Counter

import psutil
import psycopg2
import pytest
import requests

from local.supervision import Supervisor
from tests.alerts.runbooks import all_blocks
from tests.fixtures.alertmanager import programs, receiver, start
from tests.fixtures.services import Client, eventually, new_session
from tests.fixtures.stack import LocalStack

__all__ = ["programs", "receiver", "start"]

PATIENCE = "6s"
"""What ALERT_FOR makes of the minutes that a fault has to last."""


class Watcher(threading.Thread):
    """Asks Prometheus every half second which alerts there are.

    Attributes:
        seen: (time, {(name, state)}) of each time that it was asked.
    """

    def __init__(self, root):
        super().__init__(daemon=True)
        self.prometheus = Client(root)
        self.seen = []
        self._stopping = threading.Event()

    def run(self):
        with new_session() as session:
            while not self._stopping.wait(0.5):
                answer = session.get(f"{self.prometheus.root}/api/v1/alerts", timeout=5)
                alerts = answer.json()["data"]["alerts"]
                now = {(one["labels"]["alertname"], one["state"]): one for one in alerts}
                self.seen.append((time.monotonic(), now))

    def stop(self):
        self._stopping.set()
        self.join()
        self.prometheus.session.close()

    def active(self):
        """The names of all alerts that are there now, pending ones too, but for those of budgets: they take hours."""
        return {name for name, _ in self.seen[-1][1] if not name.endswith("Burn")} if self.seen else set()

    def firing(self):
        return {name for name, state in self.seen[-1][1] if state == "firing"} if self.seen else set()

    def between(self, begin, end):
        """The names of all that were seen to fire in this time."""
        return {name for at, alerts in self.seen if begin <= at <= end for name, state in alerts if state == "firing"}


class Crowd:
    """Customers who do the same again and again, whatever they are answered, until `stop`."""

    def __init__(self, shop, people, pause, *requests_):
        self._shop, self._pause, self._requests = shop, pause, requests_
        self._token = shop.login()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, daemon=True) for _ in range(people)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self):
        with new_session() as session:
            session.headers["Authorization"] = f"Bearer {self._token}"
            while not self._stopping.wait(self._pause):
                for method, path, body in self._requests:
                    with contextlib.suppress(requests.RequestException):
                        session.request(method, self._shop.gateway.root + path, json=body, timeout=20)


class Saboteur:
    """Breaks parts of a stack, each for the time of a `with`."""

    def __init__(self, shop):
        self._shop = shop
        self._supervisor = Supervisor.find(shop.run_dir)

    def _state(self, part):
        return self._supervisor.states()[part]

    @contextlib.contextmanager
    def stopped(self, part):
        self._supervisor._call("supervisor.stopProcess", f"{self._state(part)['group']}:{part}")
        try:
            yield
        finally:
            self._supervisor.start(part)

    @contextlib.contextmanager
    def frozen(self, part):
        process = psutil.Process(self._state(part)["pid"])
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    @contextlib.contextmanager
    def outage_of_payment(self):
        self._shop.fault("payment-down")
        try:
            yield
        finally:
            self._shop.fault("payment-down", "off")

    @contextlib.contextmanager
    def nonsense_in_the_access_log(self):
        """A line that should be a request, every second."""
        with self._written('{"service": "nginx", "event": "request.completed", "status": "many"}', 1):
            yield

    @contextlib.contextmanager
    def flood_of_requests(self):
        """A last request that is logged again and again: more spans than a frozen backend is offered in its time."""
        lines = (self._shop.run_dir / "logs" / "nginx.log").read_text().splitlines()
        with self._written(next(line for line in reversed(lines) if '"request.completed"' in line), 800):
            yield

    @contextlib.contextmanager
    def limited_requests(self):
        """Requests that the gateway refused as too many, as its log tells them, a few each second."""
        lines = (self._shop.run_dir / "logs" / "nginx.log").read_text().splitlines()
        line = json.loads(next(line for line in reversed(lines) if '"request.completed"' in line))
        with self._written(json.dumps({**line, "http_route": "/users/me", "method": "GET", "status": 429}), 3):
            yield

    @contextlib.contextmanager
    def failing_requests(self, route):
        """Requests of this route that fail, as the gateway's log tells them, a few each second."""
        lines = (self._shop.run_dir / "logs" / "nginx.log").read_text().splitlines()
        line = json.loads(next(line for line in reversed(lines) if '"request.completed"' in line))
        with self._written(json.dumps({**line, "http_route": route, "status": 503}), 3):
            yield

    @contextlib.contextmanager
    def _written(self, line, times):
        stopping = threading.Event()

        def write():
            while not stopping.wait(1):
                with (self._shop.run_dir / "logs" / "nginx.log").open("a") as log:
                    log.write(f"{line}\n" * times)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    @contextlib.contextmanager
    def orders_locked(self):
        """A transaction of somebody's, forgotten."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self._shop.ports["ORDER_DB"],
            dbname="orders_user",
            user="orders_user",
            password=(self._shop.run_dir / "secrets" / "orders_user").read_text().strip(),
        )
        try:
            connection.cursor().execute("LOCK TABLE orders.orders IN ACCESS EXCLUSIVE MODE")
            yield
        finally:
            connection.close()


class Drama:
    """What happened, and when.

    Attributes:
        watcher: What was seen.
        alarms_in_health: The alerts that fired before any fault, and not once only.
        acts: Alerts that a fault is to cause -> begin and end of it.
    """

    def __init__(self, shop):
        self.watcher = Watcher(shop.prometheus_url)
        self.shop = shop
        self.alarms_in_health = set()
        self.acts = {}
        self.answers = {}
        self.rows, self.lines = {}, {}
        self._began = time.time()

    @contextlib.contextmanager
    def act(self, *alerts, ask=None):
        """A fault that lasts until all these alerts fire."""
        began = time.monotonic()
        yield
        with contextlib.suppress(AssertionError):  # which one did not is said by its own test
            eventually(lambda: self.watcher.firing() >= set(alerts), 100, pause=0.2)
        if ask:
            for alert in alerts:
                self.answers[alert] = ask(alert)
        for alert in alerts:
            self.acts[alert] = (began, time.monotonic())

    def await_evaluations(self, count, seconds=60):
        """Wait until Prometheus has evaluated each group of alerts so often."""
        seen = {}

        def evaluated():
            groups = self.watcher.prometheus.get("/api/v1/rules", params={"type": "alert"}).json()["data"]["groups"]
            for group in groups:
                seen.setdefault((group["file"], group["name"]), set()).add(group["lastEvaluation"])
            return seen and all(len(moments) > count for moments in seen.values())

        eventually(evaluated, seconds, pause=0.5)

    def await_health(self):
        """Watch four evaluations, in which whatever is wrong would come to fire.

        With ALERT_FOR, two scrapes that are late on a busy machine are an outage. So if something fires, watch as long
        twice more: what fires again is a false alarm. Budgets are left aside: on such a machine orders may be slow.
        """
        fired = Counter()
        for _ in range(3):
            self.await_calm()
            began = time.monotonic()
            self.await_evaluations(4)
            fired.update(name for name in self.watcher.between(began, time.monotonic()) if not name.endswith("Burn"))
            if not fired:
                break
        self.alarms_in_health = {name for name, times in fired.items() if times > 1}

    def ask_for_lines(self):
        """Ask for the log lines of the whole time, as each page does."""
        loki = Client(self.shop.loki_url)
        for _, query in all_blocks("logql"):
            window = {"start": int(self._began * 1e9), "end": time.time_ns(), "step": "15s", "limit": 100}
            answer = loki.get("/loki/api/v1/query_range", params={"query": query, **window})
            assert answer.status_code == 200, answer.text
            self.lines[query] = answer.json()["data"]["result"]
        loki.session.close()

    def value(self, query):
        """What a query gives now; 0 if that is nothing."""
        result = self.watcher.prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
        return float(result[0]["value"][1]) if result else 0

    def await_calm(self, seconds=100):
        eventually(lambda: not self.watcher.active(), seconds, pause=0.2)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    running = LocalStack(
        tmp_path_factory.mktemp("alerts"), ALERT_FOR=PATIENCE, LOGIN_RATE="200r/s", CLIENT_CONNECTIONS="10000"
    )
    running.up()
    yield running
    running.down()
