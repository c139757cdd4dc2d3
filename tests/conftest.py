"""Fixtures for all tests, and the rule that CI skips nothing."""

import gc
import os
import signal
import threading

import pytest
import structlog
import yaml

from local.processes import hear_ctrl_c

pytest_plugins = [
    f"tests.fixtures.{name}"
    for name in (
        "services",
        "database",
        "gateway",
        "stack",
        "opentelemetry",
        "otlp",
        "gateway_telemetry",
        "embedded",
        "left_out",
    )
]

_LONGEST_ID = 100
# Of garbage: with the defaults its collection costs more than half of what tests/why computes.
_FEWER_COLLECTIONS = (100_000, 20, 20)

yaml.SafeLoader = yaml.CSafeLoader  # for `safe_load`: hundreds of files are read, and libyaml needs a tenth of the time


def pytest_configure():
    """Let Ctrl-C end the tests, and what they start, also where a script began them in the background; log as ever.

    SIGTERM does the same: a step that exceeds its time limit in CI gets it, and stacks would stay otherwise.
    """
    gc.set_threshold(*_FEWER_COLLECTIONS)
    hear_ctrl_c()
    if threading.current_thread() is threading.main_thread():  # no other may
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    structlog.configure()  # or the first app would set up logging for the whole process


def pytest_addoption(parser):
    parser.addoption(
        "--record",
        action="store_true",
        help="tests/conformance: ask the real Jaeger and Loki, as far as they are there, and keep their answers",
    )


def pytest_make_parametrize_id(val):
    """Shorten the ids of long values: of one of 17 MiB each process of the tests would keep several copies."""
    if isinstance(val, str | bytes) and len(val) > _LONGEST_ID:
        return f"{val[:_LONGEST_ID]!a} of {len(val)}"
    return None


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups in the same hook
def pytest_collection_modifyitems(items):
    """Keep the tests of the session's stack together: each worker of `make test` that has one starts a stack."""
    for item in items:
        if "stack" in item.fixturenames and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("stack"))


def pytest_collection_finish():
    """Leave thousands of tests, which stay, out of each collection of garbage."""
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """With CI_NO_SKIPS set, a skipped test fails the run: there, everything is there that a test could want."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("tests were skipped, and CI_NO_SKIPS is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
