"""Visitors of the shop, run in a pod: ask every service in turn, on a new connection each, until they are told to end.

Reads words from stdin and answers each with a line of JSON: `count`, how many answers so far; `end`, what was seen.
Without --insist nothing is tried twice and an order has no key, so that each failure shows. With --eager they rest
little; otherwise they leave the machine some time, or it would be too busy to replace pods.
"""

import collections
import http.client
import itertools
import json
import sys
import threading
import time
import uuid

HOST = "nginx.shop"
INSIST = "--insist" in sys.argv
PAUSE = 0.02 if "--eager" in sys.argv else 0.15
ORDER = ("POST", "/orders/")
VISITS = (
    [ORDER]
    if INSIST
    else [ORDER, ("GET", "/orders/"), ("GET", "/products/1"), ("GET", "/users/me"), ("GET", "/auth/validate")]
)

answers = collections.Counter()
placed, surprises, failures = {}, [], []
lock, stopping = threading.Lock(), threading.Event()


def ask(method, path, body=None, **headers):
    """Ask on a connection of its own: (status, body), or (what went wrong, "")."""
    connection = http.client.HTTPConnection(HOST, timeout=20)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return repr(error), ""
    finally:
        connection.close()


def visit(token):
    """Visit until it is time to stop."""
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in itertools.cycle(VISITS):
        body = {"product_id": 1} if method == "POST" else None
        key = str(uuid.uuid4())
        while not stopping.wait(PAUSE):
            status, text = ask(method, path, body, **headers, **({"Idempotency-Key": key} if INSIST else {}))
            with lock:
                answers[f"{method} {path} {status}"] += 1
                if status not in {200, 201, 202}:
                    failures.append(f"{time.strftime('%X')} {method} {path} {status}")
                if status in {200, 201, 202} and INSIST:
                    placed[key] = json.loads(text)["id"]
                elif isinstance(status, int) and 400 <= status < 500:
                    surprises.append([status, text])
            if not INSIST or status in {200, 201, 202}:
                break
        if stopping.is_set():
            return


status, text = ask("POST", "/auth/login", {"username": "admin", "password": "password"})
if status != 200:
    sys.exit(f"no login: {status} {text}")
visitors = [threading.Thread(target=visit, args=[json.loads(text)["token"]], daemon=True) for _ in range(4)]
for visitor in visitors:
    visitor.start()
    time.sleep(0.005)
for line in sys.stdin:
    if line.strip() == "end":
        stopping.set()
        for visitor in visitors:
            visitor.join(25)
        print(
            json.dumps({"answers": answers, "placed": placed, "surprises": surprises[:5], "failures": failures[:20]}),
            flush=True,
        )
        break
    with lock:
        print(json.dumps(sum(answers.values())), flush=True)
