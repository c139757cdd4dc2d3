"""What more pods of order-service give in a Kubernetes cluster: Locust's ramp, from inside, with few and with many."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING, Any

from bench import figures, machine
from bench.errors import BenchError
from loadtest import limits
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.stacks import Say

LOAD = "deploy/kubernetes/components/load/stack"
"""What has to be applied beside the shop."""

_SCALED = "deployment/order-service"
_LOADTESTS = ("deployment/loadtest", "deployment/loadtest-worker")
_DATABASE = """
import json, os, sys, urllib.parse, urllib.request
query = (
    "1000 * sum(increase(db_client_operation_duration_seconds_sum[{0}s]))"
    " / sum(increase(orders_total{{job='order-service'}}[{0}s]))"
).format(sys.argv[1])
fields = urllib.parse.urlencode({"query": query, "time": sys.argv[2]})
found = json.load(urllib.request.urlopen(os.environ["LOAD_PROMETHEUS"] + "/api/v1/query?" + fields, timeout=10))
print(found["data"]["result"][0]["value"][1])
"""
"""Asks Prometheus from the load test's pod how long the services waited for PostgreSQL, for one order."""
_NAMES_SECONDS = 8
"""How long the cluster's DNS and the gateway may remember the pods that were there before."""


def describe() -> dict[str, Any]:
    """Say what the cluster is.

    Raises:
        BenchError: There is none, or no shop with the load test is in it.
    """
    nodes = json.loads(_kubectl("get", "nodes", "-o", "json"))["items"]
    autoscalers = _kubectl("-n", "shop", "get", "hpa", "--ignore-not-found", "-o", "name").split()
    if any(name.endswith("/order-service") for name in autoscalers):
        raise BenchError("A HorizontalPodAutoscaler decides how many pods order-service has: delete it first.")
    _kubectl("-n", "shop", "get", _SCALED, *_LOADTESTS)
    sizes = [node["status"]["capacity"] for node in nodes]
    seen = nodes[0]["status"]["nodeInfo"]
    return {
        "cores": sum(int(size["cpu"]) for size in sizes),
        "cpu": "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes",
        "memory_gb": round(sum(int(size["memory"].removesuffix("Ki")) for size in sizes) * 1024 / 1e9, 1),
        "kernel": seen["kernelVersion"],
        "kubernetes": seen["kubeletVersion"],
        "nodes": len(nodes),
        "commit": machine.commit(PROJECT),
    }


@contextlib.contextmanager
def loaded(workers: int, users: int, seconds: float) -> Iterator[None]:
    """Have the load test ready for ramps of orders, and take it back afterwards."""
    chosen = {
        "LOAD_SHAPE": "ramp",
        "LOAD_USERS": str(users),
        "LOAD_SECONDS": f"{seconds:g}",
        "LOAD_MIX": "order=1",
        "LOAD_WORKERS": str(workers),
    }
    _kubectl("-n", "shop", "set", "env", *_LOADTESTS, *(f"{name}={value}" for name, value in chosen.items()))
    try:
        _scale("deployment/loadtest-worker", workers)
        _ready(*_LOADTESTS)
        yield
    finally:
        _scale("deployment/loadtest-worker", 0)
        _kubectl("-n", "shop", "set", "env", *_LOADTESTS, *(f"{name}-" for name in chosen))
        _scale(_SCALED, 1)


def turns(counts: Sequence[int], rounds: int, say: Say, done: list[dict[str, Any]]) -> None:
    """Take turns: in each round a ramp with each number of pods.

    Args:
        counts: Numbers of pods.
        rounds: How many rounds.
        say: Tells the person who waits.
        done: Gets each turn.
    """
    names = [str(count) for count in counts]
    for number in range(rounds):
        for name in figures.rotated(names, number):
            turn = _turn(int(name)) | {"round": number}
            done.append(turn)
            say(f"round {number + 1}: {name} pods, {turn['per_second']:.0f} orders/s at most")


def _turn(count: int) -> dict[str, Any]:
    """Make one ramp.

    Raises:
        BenchError: The books do not balance, or more failed than a ramp may.
    """
    _scale(_SCALED, count)
    _ready(_SCALED)
    time.sleep(_NAMES_SECONDS)
    master = ("-n", "shop", "exec", "deployment/loadtest", "--")
    said = _kubectl(*master, "sh", "-c", "python -m loadtest || echo 'it was not good'", seconds=600)
    report = json.loads(_kubectl(*master, "cat", "/results/latest/report.json"))
    if not report["good"]:
        raise BenchError(f"The load test with {count} pods was not good:\n{said[-2000:]}")
    stages = report["stages"]
    best = max(stage["order_rate"] for stage in stages)
    knee = next(stage for stage in stages if stage["order_rate"] >= limits.KNEE * best)
    services = (report["server"] or {}).get("services", {})
    window = (str(round(report["ended"] - report["began"])), str(report["ended"]))
    return {
        "row": str(count),
        "per_second": best,
        "knee": knee,
        "stages": stages,
        "cores": {name: seen["cores"] for name, seen in services.items() if seen["cores"] is not None},
        "database_ms": float(_kubectl(*master, "python", "-c", _DATABASE, *window)),
        "generator_was_busy": report["generator_was_busy"],
        "orders": report["books"]["told"],
        "failures": report["total"]["failures"],
    }


def _scale(deployment: str, count: int) -> None:
    _kubectl("-n", "shop", "scale", deployment, f"--replicas={count}")


def _ready(*deployments: str) -> None:
    for deployment in deployments:
        _kubectl("-n", "shop", "rollout", "status", deployment, "--timeout=180s", seconds=200)


def _kubectl(*arguments: str, seconds: float = 60) -> str:
    command = [*shlex.split(os.environ.get("KUBECTL") or "kubectl"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except FileNotFoundError as error:
        raise BenchError("There is no kubectl: install it, or say where it is with KUBECTL=/path/to/kubectl") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"Not done within {seconds:g} s: kubectl {shlex.join(arguments)}") from error
    if done.returncode:
        hint = f"Is the shop there, with `kubectl apply -k {LOAD}`?"
        raise BenchError(f"kubectl {shlex.join(arguments[:6])}: {done.stderr.strip()[-500:]}\n{hint}")
    return done.stdout
