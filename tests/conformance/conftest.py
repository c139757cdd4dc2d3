"""The embedded backend beside the real Jaeger and Loki: the same is sent to both, and asked of both.

The real one is its recording, always; where there is one, it is asked too, or recorded anew (`--record`).
"""

import contextlib

import pytest

from tests.conformance import recordings
from tests.fixtures.embedded import running_embedded
from tests.fixtures.real import running_real


def pytest_configure(config):
    recordings.option["record"] = config.getoption("--record")
    if config.getoption("--record") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--record: a recording is made by one process, without -n")


def pytest_generate_tests(metafunc):
    if "pair" in metafunc.fixturenames:
        recording = metafunc.module.RECORDING
        pairs = [(recording, way) for way in recording.ways]
        metafunc.parametrize("pair", pairs, ids=recording.ways, indirect=True, scope="session")


@pytest.fixture(scope="session")
def pair(request, tmp_path_factory):
    """An embedded backend that knows nothing but what these tests send to both, and the real one."""
    recording, way = request.param
    with contextlib.ExitStack() as running:
        clock = recording.start + recordings.AGE if way == "recorded" else None
        embedded = running.enter_context(running_embedded(tmp_path_factory.mktemp("embedded"), clock))
        if way == "recorded":
            real = recording.player()
        else:
            real = running.enter_context(running_real(recording.name, tmp_path_factory.mktemp(recording.name)))
            change = recordings.Recorder(recording) if way == "record" else recordings.Later(recording)
            for client in (real.otlp, real.api):
                client.session.mount("http://", change)
        if way == "live":
            for client in (embedded.otlp, embedded.jaeger, embedded.loki):
                client.session.mount("http://", change)
            embedded.otlp.prepare = real.otlp.prepare = change.message
        real.is_recorded = way == "recorded"
        yield embedded, real
        if way == "record" and not request.session.testsfailed:
            recording.write()


@pytest.fixture(scope="session")
def embedded(pair):
    return pair[0]


@pytest.fixture(scope="session")
def real_jaeger(pair):
    return pair[1]


@pytest.fixture(scope="session")
def real_loki(pair):
    return pair[1]
