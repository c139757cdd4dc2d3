"""Simulated faults for practice, which feature flags switch on and off while the shop runs.

The shop does not need this module. Each service has its own module `faults`, which wraps some of the service's parts;
this module has the common code. `scenarios/flags/flags.json` describes the flags, docs/scenarios.md the scenarios.
"""

import contextlib
import gc
import itertools
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, request
from prometheus_client import Counter, Gauge

from servicekit.flags import Flags, FlagSettings
from servicekit.service import Service
from servicekit.telemetry.setup import make_resource
from shop import RESOURCE

ROUND_SECONDS = 0.25
_STUCK_SECONDS = 20.0  # longer than the gateway's timeout
_LEAK_LIMIT = 128 * 1024 * 1024
_FILES_LEFT = 250
_SPARE_FILES = 8  # other threads may open files at the same moment
_MOST_SERIES = 50_000
_COLLECTING_SECONDS = 0.35  # of collections in a row, each of which stops the interpreter. Not a number: some are fast
_ANY_SERVICE = (
    "cpu-burn", "memory-leak", "gc-pauses", "threads-stuck", "files-leak", "release-slow",
    "span-flood", "log-flood", "label-explosion", "clock-off",
)  # fmt: skip
"""The flags that every service evaluates; their targeting selects the service."""


class Faults:
    """The faults of a service: its own, and those that any service may have.

    Args:
        kit: The service.
        settings: The settings of the flags.
        own: The flags that the service's own module evaluates.
    """

    def __init__(self, kit: Service, settings: FlagSettings, *own: str) -> None:
        version = str(make_resource(kit.name, RESOURCE).attributes["service.version"])
        self._flags = kit.flags(settings, {"service": kit.name, "version": version})
        self._tracer = kit.tracer
        self._log = kit.log
        gauge = Gauge(
            "simulated_faults",
            "1 while this simulated fault is set, for this service or another.",
            ["fault"],
            registry=kit.metrics.registry,
        )
        for name in (*own, *_ANY_SERVICE):
            gauge.labels(name).set_function(_is_set(self._flags, name))
        self._exploding = Counter(
            "requests_by_number_total",
            "Requests, by their number.",
            ["number"],
            registry=kit.metrics.registry,
        )
        self._requests = 0
        self._numbers = itertools.count()
        self._leaked: list[bytes] = []
        self._cycles: list[Any] = []
        self._files: list[int] = []
        self._files_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        kit.every(ROUND_SECONDS, "faults", self.round)

    def is_set(self, fault: str, user: str | None = None, **about: Any) -> bool:
        """Whether a fault is on for this user and these attributes."""
        return self._flags.value(fault, default=False, user=user, **about)

    def amount(self, fault: str, user: str | None = None, **about: Any) -> int:
        """The strength of a fault for this user and these attributes; 0 if it is off."""
        return self._flags.value(fault, 0, user, **about)

    def kind(self, fault: str, **about: Any) -> str:
        """The variant of a fault for these attributes; "" if it is off."""
        return self._flags.value(fault, "", **about)

    def wait(self, fault: str, user: str | None = None, **about: Any) -> None:
        """Wait for the number of milliseconds that the fault sets."""
        if milliseconds := self.amount(fault, user, **about):
            time.sleep(milliseconds / 1000)

    def spoil(self, app: Flask) -> Flask:
        """Apply to the app's requests the faults that any service may have."""
        app.before_request(self._meet)
        return app

    def _meet(self) -> None:
        if not self._flags.any_enabled() or request.path in {"/healthz", "/readyz", "/metrics"}:
            return
        self._requests += 1
        self.wait("release-slow")
        _compute(self.amount("cpu-burn"))
        if self.is_set("threads-stuck", request=self._requests):
            self._hang()
        for _ in range(self.amount("span-flood")):
            with self._tracer.span("look at an item"):
                pass
        for item in range(self.amount("log-flood")):
            self._log.info("item.looked_at", item=item)
        for _ in range(self.amount("label-explosion")):
            self._exploding.labels(next(self._numbers) % _MOST_SERIES).inc()
        if leaked := self.amount("memory-leak"):
            self._leaked.append(b"x" * leaked * 1024 * 1024)  # bytes(n) would use no memory: unwritten pages
        for _ in range(self.amount("files-leak")):
            self._files.append(os.open(os.devnull, os.O_RDONLY))

    def _hang(self) -> None:
        """Block the request's thread, like a lock that is never released, until the time is over or the flag is off."""
        end = time.monotonic() + _STUCK_SECONDS
        while time.monotonic() < end and self._flags.enabled("threads-stuck"):
            time.sleep(0.1)

    def round(self, _stopping: Callable[[], bool]) -> None:
        """Start and stop the faults that do not depend on requests."""
        with self._a_file_more():  # needed to read the flags file; otherwise this fault could not be switched off
            self._flags.any_enabled()
        self._pause(self.amount("gc-pauses"))
        self._limit_files()
        _set_clock(self.amount("clock-off"))
        if not self._flags.enabled("label-explosion"):
            self._exploding.clear()
        if not self._flags.enabled("memory-leak"):
            self._leaked.clear()
        elif len(self._leaked) and sum(map(len, self._leaked)) > _LEAK_LIMIT:
            os.kill(os.getpid(), 9)  # like the kernel at a container's memory limit

    def _pause(self, objects: int) -> None:
        if not objects:
            self._cycles.clear()
            return
        if not self._cycles:
            gc.disable()
            for _ in range(objects):
                node: list[Any] = []
                node.append(node)
                self._cycles.append(node)
            gc.enable()
        end = time.monotonic() + _COLLECTING_SECONDS
        while time.monotonic() < end:
            gc.collect()

    @contextlib.contextmanager
    def _a_file_more(self) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if not self._files:
            yield
            return
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + _SPARE_FILES, hard), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def _limit_files(self) -> None:
        """Lower the limit of file descriptors while they leak, so the leak is felt soon; restore it afterwards."""
        if self._flags.enabled("files-leak") and self.amount("files-leak"):
            if resource.getrlimit(resource.RLIMIT_NOFILE) == self._files_limit:
                open_now = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
                resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + _FILES_LEFT, self._files_limit[1]))
        elif resource.getrlimit(resource.RLIMIT_NOFILE) != self._files_limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._files_limit)
            while self._files:
                os.close(self._files.pop())


def _compute(milliseconds: int) -> None:
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass


def _is_set(flags: Flags, fault: str) -> Callable[[], float]:
    return lambda: float(flags.enabled(fault))


def _set_clock(seconds: int) -> None:
    """Shift the times of this process's spans by these seconds, as if the machine's clock were wrong."""
    # Some spans get their start time from the instrumentation and their end time from the SDK. Both are shifted.
    from opentelemetry.instrumentation import flask  # noqa: PLC0415
    from opentelemetry.sdk import trace as sdk  # noqa: PLC0415  # reads the environment when it is imported

    for module in (sdk, flask):
        vars(module)["time_ns"] = (lambda: time.time_ns() + seconds * 10**9) if seconds else time.time_ns
