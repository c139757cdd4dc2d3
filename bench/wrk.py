"""The load: `wrk`, which places orders in a closed loop, and what it says about their answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.errors import BenchError
from local import debian
from local.errors import LocalError

SCRIPT = Path(__file__).with_name("order.lua")

_LIBRARIES = {"libluajit-5.1.so.2": "libluajit-5.1-2", "libssl.so.3": "libssl3"}
"""What Debian's wrk needs and a machine may lack, by package."""

_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Result:
    """What wrk measured.

    Attributes:
        orders: Answers with 201.
        seconds: How long it took.
        p50_ms: Latency, as p95_ms, p99_ms and max_ms.
        cpu_seconds: Processor time of wrk itself.
    """

    orders: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float = 0.0


def parse(output: str) -> Result:
    """Read wrk's output.

    Raises:
        BenchError: An order was not answered with 201, or not at all: such a run measures something else.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise BenchError(f"wrk failed: {output.strip() or 'it says nothing'}")
    said = json.loads(line)
    others = said.pop("others").split()
    answers, errors = said.pop("answers"), said.pop("errors")
    if others or errors or answers != said["orders"] or not answers:
        counts = ", ".join(f"{count} x {status}" for status, count in Counter(others).most_common()) or "none"
        raise BenchError(
            f"{said['orders']} of {answers} orders were answered with 201 (other statuses: {counts};"
            f" broken connections and timeouts: {errors}), so nothing was measured."
        )
    return Result(**said)


def run(url: str, token: str, clients: int, seconds: float) -> Result:
    """Place orders with so many clients, each of which waits for its answer and orders again.

    Raises:
        BenchError: It did not end, or see `parse`.
    """
    program, environment = find()
    command = [program, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "15s", "-s", str(SCRIPT)]
    before = os.times()
    try:
        done = subprocess.run(
            [*command, f"{url}/orders/", "--", token],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + _PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk was to take {seconds:g} s and did not end within {error.timeout:.0f} s.") from error
    after = os.times()
    result = parse(done.stdout + done.stderr)
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Result(**{**vars(result), "cpu_seconds": spent})


@cache
def find() -> tuple[str, dict[str, str]]:
    """Find wrk: the one that WRK names, the system's, or one fetched from the distribution with its libraries.

    Returns:
        The program, and the environment to run it in.

    Raises:
        BenchError: There is none, and none can be fetched.
    """
    environment = dict(os.environ)
    try:
        program = os.environ.get("WRK") or shutil.which("wrk") or str(debian.fetch("wrk", "usr/bin/wrk"))
        for _ in range(1 + len(_LIBRARIES)):
            try:
                done = subprocess.run(
                    [program, "-v"], env=environment, capture_output=True, text=True, check=False, timeout=20
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BenchError(f"{program} does not run: {getattr(error, 'strerror', error)}.") from error
            if done.stdout.startswith("wrk "):
                return program, environment
            missing = re.search(r"loading shared libraries: ([\w.-]+):", done.stderr)
            if not missing or missing[1] not in _LIBRARIES:
                break
            folder = f"usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
            library = debian.fetch(_LIBRARIES[missing[1]], f"{folder}/{missing[1]}")
            paths = (str(library.parent), environment.get("LD_LIBRARY_PATH", ""))
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    except LocalError as error:
        raise BenchError(f"wrk makes the load, and is not here. {error} WRK=/path/to/wrk names one.") from error
    said = (done.stderr or done.stdout).strip().partition("\n")[0]
    raise BenchError(f"{program} cannot be used ({said}): set WRK to the path of a wrk 4.")
