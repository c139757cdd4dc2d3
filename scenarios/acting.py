"""Switches faults on and off: by feature flags in both modes, or by the local stack's supervisor."""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from typing import TYPE_CHECKING

import psutil
import requests

from local import ports
from local.probes import http_ready
from local.processes import child
from local.settings import PROJECT
from local.stack import gateway_settings
from scenarios import flags, undo
from scenarios.describing import Fault, Flood, Freeze, Replica, Restart, Scribble
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from local.settings import Settings
    from scenarios.describing import Switch
    from scenarios.place import Place

_FLOODERS = 16
_READY_SECONDS = 60

NEEDS_STACK = "needs the local stack (`make up`), whose parts can be stopped and changed"


def on(switch: Switch, place: Place) -> AbstractContextManager[None]:
    """Return a context manager that switches a fault on, and off again at the end, whatever happens.

    Raises:
        ScenarioError: The fault needs the local stack, but the shop runs in Docker Compose.
    """
    match switch:
        case Fault():
            return _flag(switch.fault, switch.to, place)
        case Restart():
            return _restarted(switch, place, _stack(place))
        case Freeze():
            _stack(place)
            return _frozen(switch, place)
        case Replica():
            return _replica(switch, place, _stack(place))
        case Flood():
            return _flooded(switch, place)
        case Scribble():
            return _scribbled(switch, place, _stack(place))


def needs_stack(switch: Switch) -> bool:
    """Whether a fault needs the local stack, because it stops parts or changes their files."""
    return isinstance(switch, Restart | Freeze | Replica | Scribble)


def _stack(place: Place) -> Settings:
    if place.stack is None:
        raise ScenarioError(f"This fault {NEEDS_STACK}.")
    return place.stack


@contextlib.contextmanager
def _flag(name: str | None, to: str, place: Place) -> Iterator[None]:
    if name is None:
        yield
        return
    with undo.afterwards(place, f"{name}={to}", [undo.SwitchOff(switch_off=name)]):
        flags.switch(place.flags, name, to)
        yield


@contextlib.contextmanager
def _restarted(switch: Restart, place: Place, stack: Settings) -> Iterator[None]:
    """Restart a part with other settings by a changed start script; afterwards, restore the script and restart."""
    script = stack.run_dir / "conf" / f"{switch.restart}.sh"
    text = script.read_text(encoding="utf-8")
    steps: list[undo.Step] = [undo.Write(write=script, text=text), undo.StartAnew(start_anew=switch.restart)]
    with (
        _flag(switch.fault, switch.to, place),
        undo.afterwards(place, f"{switch.restart} with other settings ({', '.join(switch.environment)})", steps),
    ):
        script.write_text(_with(text, switch.environment), encoding="utf-8")
        undo.supervisor(place).restart(switch.restart)
        yield


def _with(script: str, environment: dict[str, str]) -> str:
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return script.replace("\nexec ", f"\n{exports}exec ", 1)


@contextlib.contextmanager
def _frozen(switch: Freeze, place: Place) -> Iterator[None]:
    """Freeze a part and its children, as if the machine hung."""
    process = psutil.Process(undo.supervisor(place).states()[switch.freeze]["pid"])
    with undo.afterwards(place, f"{switch.freeze} frozen", [undo.Resume(resume=switch.freeze)]):
        process.suspend()
        for each in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        yield


@contextlib.contextmanager
def _replica(switch: Replica, place: Place, stack: Settings) -> Iterator[None]:
    """Start a second replica, add it to the gateway and Prometheus, and remove it again."""
    [port] = ports.free(1)
    script = (stack.run_dir / "conf" / f"{switch.replica}.sh").read_text(encoding="utf-8")
    own = stack.run_dir / "conf" / f"{switch.replica}-2.sh"
    own.write_text(_with(script, {**switch.environment, "PORT": str(port)}), encoding="utf-8")
    conf = stack.run_dir / "conf" / "nginx"
    variable = f"{switch.replica.removesuffix('-service').upper()}_UPSTREAM"
    settings = gateway_settings(stack)
    upstreams = conf / "upstreams.conf"
    before = upstreams.read_text(encoding="utf-8")
    targets = stack.run_dir / "conf" / "prometheus" / "targets-replica.json"
    log = stack.run_dir / "logs" / f"{switch.replica}.log"
    steps: list[undo.Step] = [undo.Write(write=upstreams, text=before), *map(_absent, (targets, own)), undo.Reload()]
    with (
        _flag(switch.fault, switch.to, place),
        log.open("ab") as output,
        child(["/bin/sh", str(own)], cwd=PROJECT, stdout=output, stderr=output, start_new_session=True),
        undo.afterwards(place, f"a second {switch.replica}", steps),
    ):
        _await(lambda: http_ready(f"http://127.0.0.1:{port}/readyz") is None)
        old = f"server {settings[variable]}"
        upstreams.write_text(before.replace(old, f"server 127.0.0.1:{port};\n    {old}", 1), encoding="utf-8")
        labels = {"job": switch.replica, "service_name": switch.replica}
        targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"], "labels": labels}]), encoding="utf-8")
        undo.take(undo.Reload(), place)
        yield


def _absent(file: Path) -> undo.Write:
    return undo.Write(write=file)


@contextlib.contextmanager
def _flooded(switch: Flood, place: Place) -> Iterator[None]:
    """Send logins without a password. They count for the rate limit, but cost no password check."""

    def flood(stopping: threading.Event) -> None:
        with requests.Session() as session:
            session.trust_env = False
            body = {"username": "nobody"}
            while not stopping.wait(1 / switch.rate * _FLOODERS):
                with contextlib.suppress(requests.RequestException):
                    session.post(f"{place.gateway}/auth/login", json=body, timeout=10)

    with undo.afterwards(place, "a flood of logins", []), _meanwhile(flood, _FLOODERS):
        yield


@contextlib.contextmanager
def _scribbled(switch: Scribble, place: Place, stack: Settings) -> Iterator[None]:
    """Write a line into a log each second."""
    log: Path = stack.run_dir / "logs" / f"{switch.scribble}.log"

    def scribble(stopping: threading.Event) -> None:
        while not stopping.wait(1):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{switch.line}\n")

    with undo.afterwards(place, f"lines in the log of {switch.scribble}", []), _meanwhile(scribble):
        yield


@contextlib.contextmanager
def _meanwhile(work: Callable[[threading.Event], None], threads: int = 1) -> Iterator[None]:
    """Run work in threads until the end of the `with` block, when the event is set."""
    stopping = threading.Event()
    workers = [threading.Thread(target=work, args=(stopping,), daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        yield
    finally:
        stopping.set()
        for worker in workers:
            worker.join()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ScenarioError(f"The replica could not serve within {_READY_SECONDS} s.")
        time.sleep(0.1)
