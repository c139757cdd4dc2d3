"""A stack of tiny stand-ins, run through the real command line and the real supervisor."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local.processes import child
from tests.fixtures import services
from tests.fixtures.ports import free_ports, is_free

eventually = functools.partial(services.eventually, seconds=30)  # processes start slowly on a busy machine

FAKE_STACK = Path(__file__).parent / "fake_stack.py"
PORTS = {
    "base": "ORDER_DB_PORT",
    "one": "ORDER_PORT",
    "two": "USER_PORT",
    "front": "GATEWAY_PORT",
    # Not started here, but no two ports of a stack may be the same.
    "auth": "AUTH_PORT",
    "product": "PRODUCT_PORT",
    "payment": "PAYMENT_PORT",
    "jaeger": "JAEGER_PORT",
    "extra": "PROMETHEUS_PORT",
}


class FakeStack:
    def __init__(self, folder):
        self.folder = folder
        self.fakes = folder / "fakes"
        self.fakes.mkdir(parents=True)
        (self.fakes / "order").touch()
        self.run_dir = folder / "run"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.endswith("_PORT")},
            **{PORTS[part]: str(port) for part, port in self.ports.items()},
            "RUN_DIR": str(self.run_dir),
            "FAKES": str(self.fakes),
            "START_TIMEOUT_SECONDS": "30",
        }

    def begin(self, *arguments, prefix=(), **environment):
        return child(
            [*prefix, sys.executable, FAKE_STACK, *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, status=0, **environment):
        """Run a command, check its exit status, give what it said."""
        with self.begin(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == status, out + err
        assert "Traceback" not in out + err
        return out + err

    def make(self, file):
        (self.fakes / file).touch()

    def unmake(self, file):
        (self.fakes / file).unlink()

    def order(self):
        return (self.fakes / "order").read_text().splitlines()

    def pid(self, part):
        """The pid that `status` shows."""
        found = re.search(rf"^{part} +(\d+)", self.status(), re.MULTILINE)
        return int(found[1]) if found else None

    def status(self):
        """The table, however the stack is."""
        with self.begin("status") as process:
            return process.communicate(timeout=60)[0]

    def supervisor(self):
        return psutil.Process(int((self.run_dir / "supervisor.pid").read_text()))

    def processes(self):
        """Every process that belongs to this stack."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            mine = any(str(self.folder) in word for word in line)
            if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def free(self):
        return all(is_free(port) for port in self.ports.values())


@contextlib.contextmanager
def _stack(folder):
    stack = FakeStack(folder)
    yield stack
    try:
        if (stack.run_dir / "supervisor.pid").exists():
            stack.run("down")
    finally:
        left = stack.processes()
        for process in left:
            process.kill()
    assert not left
    assert stack.free()


@pytest.fixture(params=["plain"])
def folder_name(request):
    return request.param


@pytest.fixture
def stack(tmp_path, folder_name):
    """A stack that is not up."""
    with _stack(tmp_path / folder_name) as stack:
        yield stack


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A stack that is up, for all tests that leave it so."""
    with _stack(tmp_path_factory.mktemp("running")) as stack:
        stack.run("up")
        yield stack
