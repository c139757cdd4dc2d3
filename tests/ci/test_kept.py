"""After a failure, what the containers said is kept: the tests delete them before a workflow could ask."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.ci.test_workflows import PROJECT
from tests.fixtures.kept import unless_all_is_well

DOCKER = """\
#!/bin/sh
case "$*" in
    "compose up"*) exit 1 ;;
    *"ps --all --format"*) printf 'nginx\\norder-service\\nnginx\\n' ;;
    *"ps --all"*) echo "nginx Exited (1)" ;;
    *logs*nginx) echo "bind() failed" ;;
    *logs*) echo "order.created" ;;
esac
"""
KUBECTL = """\
#!/bin/sh
case "$*" in
    "apply "*) exit 1 ;;
    *storageclasses*)
        echo '{"items": [{"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}]}' ;;
    "-n shop logs nginx-1 "*--previous*) echo "bind() failed" ;;
    "-n shop logs nginx-1 "*) echo "listening" ;;
    "get -n shop pods"*) echo '{"items": [{"metadata": {"name": "nginx-1"}}]}' ;;
    "get -n "*pods*) echo '{"items": []}' ;;
    *"describe pods") echo "Back-off restarting failed container" ;;
esac
"""


def run(tmp_path, stub, text, *arguments, **environment):
    """Run tests whose program is a stub; the folder that their report is in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / stub).write_text(text)
    (programs / stub).chmod(0o755)
    report = tmp_path / "reports" / "tests.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CI_NO_SKIPS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'errors="1"' in report.read_text()
    return report.parent


def test_containers_of_compose(tmp_path):
    kept = run(
        *(tmp_path, "docker", DOCKER, "tests/compose/test_faults.py", "-m", "compose", "--maxfail=1"),
        COMPOSE="docker compose",
        COMPOSE_LOKI="embedded",
    )
    assert {file.name: file.read_text() for file in (kept / "compose").iterdir()} == {
        "ps.txt": "nginx Exited (1)\n",
        "nginx.log": "bind() failed\n",
        "order-service.log": "order.created\n",
    }


def test_pods_of_kubernetes(tmp_path):
    kept = run(
        *(tmp_path, "kubectl", KUBECTL, "tests/kubernetes/test_first_order.py", "-m", "kubernetes", "--maxfail=1"),
        KUBECTL="kubectl",
    )
    found = {file.name: file.read_text() for file in (kept / "kubernetes").iterdir()}
    assert found.keys() == {"shop.txt", "shop-telemetry.txt", "shop-agents.txt", "nginx-1.log", "nginx-1.before.log"}
    assert "Back-off restarting failed container" in found["shop.txt"]
    assert (found["nginx-1.log"], found["nginx-1.before.log"]) == ("listening\n", "bind() failed\n")


@pytest.fixture
def request_of(tmp_path):
    """What a fixture knows of the run, with so many failed tests."""
    config = SimpleNamespace(getoption={"xmlpath": str(tmp_path / "report.xml")}.get)
    return lambda failed: SimpleNamespace(config=config, session=SimpleNamespace(testsfailed=failed))


@pytest.mark.parametrize(("failed", "kept"), [(0, False), (1, True)])
def test_nothing_is_kept_if_all_is_well(tmp_path, request_of, failed, kept):
    with unless_all_is_well(request_of(failed), lambda folder: (folder / "x").touch(), "here"):
        pass
    assert (tmp_path / "here" / "x").exists() == kept


def test_what_ended_the_tests_is_said_even_if_nothing_can_be_kept(tmp_path, request_of):
    def keep(_):
        raise AssertionError("no engine")

    with pytest.raises(KeyError), unless_all_is_well(request_of(0), keep, "here"):
        raise KeyError
    assert (tmp_path / "here" / "incomplete.txt").read_text() == "no engine"
