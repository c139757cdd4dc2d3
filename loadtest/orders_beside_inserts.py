"""Orders a second through the gateway beside bare INSERTs a second in the same database, in turns.

Needs a running stack (`make up`). What an order costs beyond its row is the ratio of the two: the seconds differ from
machine to machine, and from minute to minute. `python loadtest/orders_beside_inserts.py --help`
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import urllib3

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from local import postgres  # noqa: E402  # the path above comes first
from local.settings import Settings, run_dir  # noqa: E402

# What order-service's INSERT does, without the service.
INSERT = """INSERT INTO orders.orders (user_id, product, quantity, status, charge_after)
VALUES (NULL, '{"id": 1, "sku": "KIT-MUG-001", "name": "Stoneware mug", "unit_price_minor": 1450, "currency": "EUR"}',
        1, 'PAID', now() + interval '10 s') RETURNING id;
"""


def orders_per_second(gateway: str, clients: int, seconds: float) -> float:
    """Place orders with so many clients in a closed loop, each on a connection of its own.

    Raises:
        RuntimeError: An order was not answered with 201.
    """
    pool = urllib3.PoolManager(maxsize=clients, block=True, timeout=20, retries=False)
    login = pool.request("POST", f"{gateway}/auth/login", json={"username": "admin", "password": "password"})
    headers = {"Authorization": f"Bearer {login.json()['token']}"}
    placed: list[int] = []
    refused: list[int] = []
    end = time.monotonic() + seconds

    def shop() -> None:
        count = 0
        while time.monotonic() < end:
            answer = pool.request("POST", f"{gateway}/orders/", json={"product_id": 1}, headers=headers)
            if answer.status != 201:  # noqa: PLR2004
                refused.append(answer.status)
                break
            count += 1
        placed.append(count)

    threads = [threading.Thread(target=shop) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise RuntimeError(f"orders were answered with {sorted(set(refused))}")
    return sum(placed) / seconds


def inserts_per_second(settings: Settings, clients: int, seconds: int) -> float:
    """Run pgbench with the bare INSERT."""
    owner = postgres.SUPERUSER
    environment = postgres.client_env(settings.order_db_port, settings.run_dir / "secrets" / owner)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(INSERT)
        script.flush()
        command = [str(postgres.binaries() / "pgbench"), "--no-vacuum", "--protocol=prepared", "--file", script.name]
        command += ["--client", str(clients), "--jobs", "2", "--time", str(seconds)]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="clients at once (8)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds a turn (5)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each, one after the other (3)")
    arguments = parser.parse_args()
    settings = Settings.of_running(run_dir(os.environ))
    gateway = f"http://127.0.0.1:{settings.gateway_port}"
    orders, inserts = [], []
    for turn in range(1, arguments.turns + 1):
        orders.append(orders_per_second(gateway, arguments.clients, arguments.seconds))
        inserts.append(inserts_per_second(settings, arguments.clients, arguments.seconds))
        print(f"turn {turn}: {orders[-1]:8.0f} orders/s {inserts[-1]:8.0f} inserts/s", flush=True)  # noqa: T201
    order, insert = statistics.median(orders), statistics.median(inserts)
    print(f"median: {order:8.0f} orders/s {insert:8.0f} inserts/s, one order is {insert / order:.0f} inserts")  # noqa: T201


if __name__ == "__main__":
    main()
