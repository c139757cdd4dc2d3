"""A disk without room: what is on it stops working for as long, and nothing else does."""

import contextlib
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from local.logfile import GAP
from tests.fixtures.services import Client, eventually
from tests.fixtures.stack import PROJECT, LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PARTS = ("order-db", "auth-service", "user-service", "product-service", "order-service", "payment-service", "nginx")
WATCHERS = ("embedded-backend", "gateway-telemetry", "prometheus")


class SmallDisk:
    """A stack with one of its folders on a small disk: a tmpfs in name spaces of its own, without root."""

    def __init__(self, folder, mounted, size):
        if not shutil.which("unshare") or subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
            pytest.skip("this machine forbids a user namespace of one's own (`unshare --user`)")
        outside = folder / "run"
        (outside / mounted).mkdir(parents=True)
        (outside / "made-by-make-up").touch()
        mount = f'mount -t tmpfs -o size={size},mode=700 tmpfs "{outside / mounted}" || exit'
        mark = f'touch "{outside}/made-by-make-up"'
        end = f'echo $$ > "{folder}/pid"; read -r _'
        # Something has to be there for as long as the stack may be down.
        self._holder = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", f"{mount}; {mark}; {end}"], stdin=subprocess.PIPE, text=True
        )
        pid = eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        self.stack = LocalStack(outside, LOGIN_RATE="200r/s")
        self.stack.prefix = ["nsenter", "--preserve-credentials", "-U", "-m", f"--wd={PROJECT}", "-t", pid]
        self.stack.run_dir = Path(f"/proc/{pid}/root{outside}")
        self._filler = self.stack.run_dir / mounted / "filler"

    def fill(self):
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def free(self):
        self._filler.unlink()

    def close(self):
        try:
            self.stack.down()
        finally:
            self._holder.communicate("\n", timeout=10)


@pytest.fixture
def small_disk(tmp_path):
    made = []

    def make(mounted, size):
        made.append(SmallDisk(tmp_path, mounted, size))
        made[-1].stack.up()
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def pids(shop):
    rows = [line.split() for line in shop.command("status").stdout.splitlines()]
    return {row[0]: row[1] for row in rows if row and row[0] in {*PARTS, *WATCHERS}}


def place(shop, token, count):
    """Place orders; how many were answered with each status."""
    return Counter(shop.gateway.post("/orders/", {"product_id": 1}, token).status_code for _ in range(count))


def value(prometheus, query):
    found = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def lines_of_created_orders(loki):
    query = 'sum(count_over_time({service_name="order-service"} | json | event="order.created" [10m]))'
    found = loki.get("/loki/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else 0


def test_without_room_for_logs_orders_go_on_and_the_lines_lost_are_counted(small_disk):
    disk = small_disk("logs", "1m")
    shop, token = disk.stack, disk.stack.login()
    prometheus, loki = Client(shop.prometheus_url), Client(shop.loki_url)
    assert place(shop, token, 3) == {201: 3}
    eventually(lambda: value(prometheus, "embedded_log_lines_lost_total") == 0, 30, pause=0.5)
    eventually(lambda: lines_of_created_orders(loki) == 3)
    before = pids(shop)
    disk.fill()
    assert place(shop, token, 100) == {201: 100}
    lost = int((shop.run_dir / "log-lines-lost").read_text())
    assert lost > 100
    eventually(lambda: value(prometheus, "embedded_log_lines_lost_total") >= lost, 30, pause=0.5)
    done = shop.command("status")
    assert done.returncode == 0, done.stdout
    assert "Log lines that could not be written:" in done.stdout
    assert shop.command("logs", "order-service", "--no-follow").returncode == 0
    disk.free()
    assert place(shop, token, 5) == {201: 5}
    log = shop.run_dir / "logs" / "order-service.log"
    eventually(lambda: log.read_bytes().rpartition(GAP)[2].count(b'"order.created"') == 5)
    kept = log.read_bytes().count(b'"order.created"')
    assert kept < 108
    eventually(lambda: lines_of_created_orders(loki) == kept)
    eventually(lambda: value(prometheus, 'sum(orders_total{status="PAID"})') == 108, 30, pause=0.5)
    assert pids(shop) == before
    for client in (prometheus, loki):
        client.session.close()


def test_without_room_for_the_backends_file_no_log_line_is_lost(small_disk):
    disk = small_disk("telemetry", "2m")
    shop, token = disk.stack, disk.stack.login()
    loki = Client(shop.loki_url)
    disk.fill()
    assert place(shop, token, 100) == {201: 100}
    eventually(lambda: shop_metric(shop, "embedded_database_failed_writes_total") > 0)
    assert loki.get("/ready").status_code == 200
    disk.free()
    eventually(lambda: lines_of_created_orders(loki) == 100, 30, pause=0.5)
    assert place(shop, token, 1) == {201: 1}
    eventually(lambda: lines_of_created_orders(loki) == 101, 30, pause=0.5)
    loki.session.close()


def shop_metric(shop, name):
    backend = Client(f"http://127.0.0.1:{shop.ports['OTLP']}")
    try:
        return backend.metric(name)
    finally:
        backend.session.close()


def test_without_any_room_orders_are_refused_and_all_is_well_again_as_soon_as_there_is_some(small_disk):
    disk = small_disk(".", "160m")
    shop, token = disk.stack, disk.stack.login()
    prometheus = Client(shop.prometheus_url)
    before = pids(shop)
    disk.fill()
    answers = place(shop, token, 100)
    assert answers[503] > 0
    assert answers.keys() <= {201, 202, 503}
    assert shop.gateway.get("/products/1").status_code == 200
    disk.free()
    eventually(lambda: place(shop, token, 1) == {201: 1}, 30, pause=0.5)
    shop.wait_until_ready(60)
    eventually(lambda: shop.query("SELECT count(*) FROM orders.orders WHERE status = 'PENDING'") == [(0,)], 40)
    assert shop.query("SELECT count(*) FROM orders.orders")[0][0] >= answers[201] + answers[202] + 1
    assert shop.query("SELECT count(*) FROM orders.orders") == shop.query("SELECT count(*) FROM payments.payments")
    eventually(lambda: (value(prometheus, "time() - max(timestamp(up))") or 60) < 10, 60, pause=0.5)
    after = pids(shop)
    assert {part: after[part] for part in before if part != "order-db"} == {
        part: pid
        for part, pid in before.items()
        if part != "order-db"  # which may have to recover from its log
    }
    prometheus.session.close()
