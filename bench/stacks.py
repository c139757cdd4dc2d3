"""Stacks that are up side by side for a measurement, each with a folder and ports of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import urllib3

from bench import cpu
from bench.errors import BenchError
from bench.rows import SWITCHES, Row
from local.ports import free
from local.settings import PROJECT

VARIANT = Path(__file__).with_name("variant.py")
SCRAPE_SECONDS = 5.0

_SERVICES = ("AUTH", "USER", "PRODUCT", "ORDER", "PAYMENT")
_PORTS = (
    *("GATEWAY", *_SERVICES, "ORDER_DB"),
    *("OTLP", "JAEGER", "LOKI", "PROMETHEUS", "GATEWAY_TELEMETRY", "CONSOLE"),
)
BACKEND_PORTS = 12
"""How many the Collector, Jaeger and Loki need together, in variant.py's order."""

_OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
_STOP_SECONDS = 120
_IDLE_SECONDS = 0.04  # of the processor: some ticks of many idle processes
_ZERO_CODE = (
    "opentelemetry-distro",
    "opentelemetry-exporter-otlp-proto-http",
    *(f"opentelemetry-instrumentation-{name}" for name in ("flask", "logging", "psycopg2", "requests")),
)
"""What the row stock takes that the shop may not have. Without one of them it would run, and make no spans."""

Say = Callable[[str], None]


class BenchStack:
    """One configuration, running.

    Args:
        row: The configuration.
        folder: Where its state lives.
    """

    def __init__(self, row: Row, folder: Path) -> None:
        self.row = row
        self.run_dir = folder
        python = row.project / ".venv" / "bin" / "python"
        self._python = python if row.project != PROJECT and python.exists() else Path(sys.executable)
        ports = free(len(_PORTS) + 1 + BACKEND_PORTS + row.replicas - 1)
        self.ports = dict(zip(_PORTS, ports, strict=False))
        sink, *others = ports[len(_PORTS) :]
        self.backend_ports, self.replica_ports = others[:BACKEND_PORTS], others[BACKEND_PORTS:]
        # No OTEL_* of the caller's: a load of spans would go to their backend, with their key.
        self._environment = {
            name: value for name, value in os.environ.items() if name not in SWITCHES and not name.startswith("OTEL_")
        }
        self._environment |= {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        self._environment |= {
            **row.environment,
            "RUN_DIR": str(folder),
            "PYTHONPATH": str(row.project),
            "LOGIN_RATE": "200r/s",
            "CLIENT_CONNECTIONS": "10000",
            "START_TIMEOUT_SECONDS": "120",
            "GRACEFUL_TIMEOUT_SECONDS": "5",
            "BENCH_ORDER_PORTS": ",".join(map(str, self.replica_ports)),
        }
        if "BENCH_SINK_PORT" in row.environment:
            self._environment["BENCH_SINK_PORT"] = str(sink)
            self._environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{sink}"
        if "BENCH_BACKENDS" in row.environment:
            self._environment["BENCH_BACKEND_PORTS"] = ",".join(map(str, self.backend_ports))
            self._environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{self.backend_ports[0]}"
        self._pool = urllib3.PoolManager(num_pools=20, timeout=10, retries=False)
        self.parts: dict[str, int] = {}

    @property
    def gateway(self) -> str:
        """The shop's address."""
        return f"http://127.0.0.1:{self.ports['GATEWAY']}"

    def up(self) -> str:
        """Start it, and return what the start said.

        Raises:
            BenchError: It did not start, or lacks packages.
        """
        if "BENCH_STOCK" in self.row.environment and not self._has(*_ZERO_CODE):
            raise BenchError(f"{self.row.name} needs the packages of requirements/bench.txt: make .venv/ready-bench")
        done = self._local("up")
        if done.returncode:
            raise BenchError(f"The stack {self.row.name} did not start:\n{done.stdout}{done.stderr}")
        self.parts = cpu.pids(self.run_dir)
        return done.stdout

    def down(self) -> None:
        """Stop it and keep its data."""
        self._local("down")

    def reset(self) -> None:
        """Stop it and delete its folder."""
        deadline = time.monotonic() + _STOP_SECONDS
        with contextlib.suppress(BenchError):  # the other stacks are to be stopped too
            while self._local("reset").returncode and time.monotonic() < deadline:
                time.sleep(0.5)  # an interrupted start is just stopping it
        shutil.rmtree(self.run_dir, ignore_errors=True)  # when it was not even begun

    def token(self) -> str:
        """Log in.

        Raises:
            BenchError: That was refused.
        """
        body = {"username": "admin", "password": "password"}
        answer = self._pool.request("POST", f"{self.gateway}/auth/login", json=body)
        if answer.status != HTTPStatus.OK:
            raise BenchError(f"The login to {self.row.name} was answered with {answer.status}.")
        token: str = answer.json()["token"]
        return token

    @contextlib.contextmanager
    def scraped(self) -> Iterator[None]:
        """Ask for all `/metrics` meanwhile, as Prometheus would, where the configuration wants it."""
        stop = threading.Event()

        def scrape() -> None:
            pause = 1.0
            while not stop.wait(pause):
                for port in (*(self.ports[name] for name in (*_SERVICES, "GATEWAY_TELEMETRY")), *self.replica_ports):
                    with contextlib.suppress(urllib3.exceptions.HTTPError):  # an older commit may lack one
                        self._pool.request("GET", f"http://127.0.0.1:{port}/metrics", headers=_OPENMETRICS)
                pause = SCRAPE_SECONDS

        thread = threading.Thread(target=scrape, daemon=True)
        if self.row.scraped:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if self.row.scraped:
                thread.join()

    def settled(self, patience_seconds: float = 6.0) -> None:
        """Wait until what the last orders left to do is done: it must not burden the next turn."""
        deadline = time.monotonic() + patience_seconds
        used = sum(cpu.seconds(self.parts).values())
        while time.monotonic() < deadline:
            time.sleep(0.3)
            before, used = used, sum(cpu.seconds(self.parts).values())
            if used - before <= _IDLE_SECONDS:
                return

    def _has(self, *packages: str) -> bool:
        asked = [
            str(self._python),
            "-c",
            "import importlib.metadata, sys; [*map(importlib.metadata.version, sys.argv[1:])]",
        ]
        return subprocess.run([*asked, *packages], capture_output=True, check=False).returncode == 0

    def _local(self, command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(self._python), "-P", str(VARIANT), command],
                cwd=self.row.project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_STOP_SECONDS * 3,
            )
        except subprocess.TimeoutExpired as error:
            text = f"`{command}` of the stack {self.row.name} did not end within {error.timeout:.0f} s."
            raise BenchError(text) from error


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Be the only measurement that leaves its results there: a second one would delete the first one's stacks.

    Raises:
        BenchError: There is one already, or the folder cannot be used.
    """
    try:
        results.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (results / ".lock").open("w")
    except OSError as error:
        raise BenchError(f"{results} cannot be used ({error.strerror}): name another with BENCH_RESULTS.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"Another measurement is at work in {results}: wait until it ends.") from None
        yield


@contextlib.contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Begin and end without the folder of stacks; what may be there is of a measurement that was killed.

    Its supervisors see that their folders are gone, and end.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(rows: Sequence[Row], folder: Path, say: Say) -> Iterator[dict[str, BenchStack]]:
    """Have stacks up; whatever happens, they are stopped and their folders deleted at the end."""
    stacks: dict[str, BenchStack] = {}
    with swept(folder):
        try:
            for number, row in enumerate(rows):
                say(f"starting {row.name} ({number + 1} of {len(rows)})")
                stacks[row.name] = BenchStack(row, folder / str(number))
                stacks[row.name].up()
            yield stacks
        finally:
            for stack in stacks.values():
                say(f"stopping {stack.row.name}")
                stack.reset()
