"""A run that is killed (SIGKILL), whatever it did to a real stack: the next command undoes it and says so."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from local.supervision import Supervisor
from scenarios import flags
from tests.fixtures.services import eventually
from tests.fixtures.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    running = LocalStack(tmp_path_factory.mktemp("killed") / "run", CLIENT_CONNECTIONS="10000")
    running.up()
    yield running
    running.down()


@contextlib.contextmanager
def running(shop, name):
    """A scenario that has switched its fault on."""
    command = [sys.executable, "-m", "scenarios", "run", name]
    with subprocess.Popen(command, cwd=PROJECT, env=shop._environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("  on "):
                    break
            else:
                pytest.fail("".join(said))
            yield process
        finally:
            process.kill()


def kill(shop, name):
    with running(shop, name) as process:
        process.kill()
        process.wait(20)


def fault(shop, *arguments):
    return shop._run("scenarios", "fault", *arguments)


def states(shop):
    return {flag.name: flag.state for flag in flags.read(shop.run_dir / "flags" / "flags.json")}


def frozen(shop):
    found = Supervisor.find(shop.run_dir).states()
    return {name for name, info in found.items() if info["pid"] and _stands(info["pid"])}


def _stands(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def files(shop):
    """What scenarios change: scripts, the gateway's upstreams, Prometheus' targets."""
    conf = shop.run_dir / "conf"
    paths = [*conf.glob("*.sh"), conf / "nginx" / "upstreams.conf", *(conf / "prometheus").glob("targets*.json")]
    return {path: path.read_text() for path in paths}


def records(shop):
    return list((shop.run_dir / "flags").glob(".undo-*"))


def test_a_flag_is_switched_off_and_that_is_said_once(shop):
    kill(shop, "payment-declines")
    assert states(shop)["payment-declines"] == "on"
    told = fault(shop)
    assert told.stderr == "A run was killed and left payment-declines=on: this is undone now.\n"
    assert set(states(shop).values()) == {"off"}
    assert (fault(shop).stderr, records(shop)) == ("", [])


def test_a_frozen_part_goes_on(shop):
    kill(shop, "database-frozen")
    assert frozen(shop) == {"order-db"}
    assert "left order-db frozen" in fault(shop).stderr
    assert not frozen(shop)
    shop.wait_until_ready(60)


@pytest.mark.parametrize("name", ["bad-setting", "release-slow", "bad-replica"])
def test_scripts_and_settings_are_as_they_were(shop, name):
    before = files(shop)
    with running(shop, name) as process:
        assert name != "bad-replica" or replicas(shop)
        process.kill()
        process.wait(20)
    assert files(shop) != before
    assert "A run was killed and left" in fault(shop).stderr
    assert (files(shop), records(shop), set(states(shop).values())) == (before, [], {"off"})
    shop.wait_until_ready(60)
    restarted = {"bad-setting": "order-service", "release-slow": "product-service"}.get(name)
    if restarted:
        changed = {"bad-setting": "PAYMENT_URL=http://127.0.0.1:9\n", "release-slow": "service.version=1.1.0"}[name]
        script = psutil.Process(shop.pid(restarted)).environ()
        assert changed.strip() not in "\n".join(f"{key}={value}" for key, value in script.items())
    else:
        eventually(lambda: not replicas(shop), 30)


def replicas(shop):
    """The processes of the second replica, of another version, which the killed run had started."""
    found = [each.info["environ"] or {} for each in psutil.process_iter(["environ"])]
    return [
        each
        for each in found
        if "service.version=1.1.0" in each.get("OTEL_RESOURCE_ATTRIBUTES", "")
        and any(str(shop.run_dir) in value for value in each.values())
    ]


def test_up_lets_a_frozen_part_go_on_and_down_does_not_wait_for_one(shop):
    kill(shop, "gateway-frozen")
    assert "nginx stood still and goes on now" in shop.command("up").stdout
    assert not frozen(shop)
    psutil.Process(shop.pid("payment-service")).suspend()
    began = time.monotonic()
    shop.down()
    assert time.monotonic() - began < 15  # a part that does not hear is killed after as long
    shop.up()
    assert (records(shop), fault(shop).stderr) == ([], "")


def test_while_one_runs_another_is_refused_and_its_fault_stays(shop):
    with running(shop, "payment-declines") as first:
        psutil.Process(first.pid).suspend()  # or it might be over on a slow machine
        second = shop._run("scenarios", "run", "payment-down")
        assert second.returncode == 1
        assert "Another run is at work here: " in second.stderr
        assert f"make scenario payment-declines (process {first.pid})" in second.stderr
        assert fault(shop).stderr == ""
        assert states(shop)["payment-declines"] == "on"
        psutil.Process(first.pid).resume()
        first.terminate()
        assert first.wait(60) == 128 + 15
    assert set(states(shop).values()) == {"off"}
