"""Following log files: nothing is lost, nothing comes twice, whatever happens to the file or to us."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from observability.embedded.database import Database, Full
from observability.embedded.logs import MAX_LINE, LogStore
from observability.embedded.tail import Tail
from tests.fixtures.services import eventually

BASE = datetime.now(UTC) - timedelta(minutes=5)


def line(number, service="order-service", **more):
    """A line as servicekit.telemetry.logs writes it, a microsecond after the last one."""
    at = (BASE + timedelta(microseconds=number)).isoformat().replace("+00:00", "Z")
    fields = {"timestamp": at, "level": "info", "service": service, "event": "counted", "number": number, **more}
    return json.dumps(fields, separators=(",", ":"))


class Followed:
    """A folder of logs that is followed into a database."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "order-service.log"
        self.started = contextlib.ExitStack()

    def start(self, patterns=("*-service.log", "nginx.log")):
        self.database = Database(self.folder / "logs.sqlite")
        store = LogStore(self.database)
        self.database.start()
        self.tail = Tail(store, [str(self.folder / pattern) for pattern in patterns], environment="test")
        self.tail.start()
        self.started.callback(self.database.stop)
        self.started.callback(self.tail.stop)

    def stop(self):
        self.started.close()

    def write(self, *lines, path=None, end="\n"):
        with (path or self.path).open("a") as file:
            file.write("".join(text + end for text in lines))

    def rows(self, what="line"):
        with self.database.read() as connection:
            return [row[0] for row in connection.execute(f"SELECT {what} FROM entries ORDER BY id")]

    def expect(self, *lines, seconds=10):
        try:
            eventually(lambda: self.rows() == list(lines), seconds)
        except AssertionError:
            assert self.rows() == list(lines)


@pytest.fixture
def followed(tmp_path):
    follower = Followed(tmp_path)
    yield follower
    follower.stop()


def test_lines_are_found_soon_after_they_are_written(followed):
    followed.write(line(0))
    followed.start()
    followed.expect(line(0))
    taken = []
    for number in range(1, 6):
        began = time.monotonic()
        followed.write(line(number))
        eventually(lambda n=number: len(followed.rows()) == n + 1, pause=0.005)
        taken.append(time.monotonic() - began)
    assert sorted(taken)[2] < 1.0, taken


def test_a_line_is_stored_with_its_time_its_service_and_its_trace(followed):
    followed.start()
    followed.write(line(7, trace_id="0" * 31 + "1", span_id="0" * 15 + "2", level="error"))
    eventually(followed.rows)
    with followed.database.read() as connection:
        labels, ts, metadata, trace = connection.execute(
            "SELECT labels, ts, metadata, trace FROM entries JOIN streams ON stream = streams.id"
        ).fetchone()
    assert json.loads(labels) == {
        "service_name": "order-service",
        "service_namespace": "shop",
        "deployment_environment_name": "test",
    }
    assert json.loads(metadata) == {"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "2", "level": "error"}
    assert trace == bytes(15) + b"\x01"
    assert ts == (int(BASE.timestamp()) * 10**6 + BASE.microsecond + 7) * 1000


@pytest.mark.parametrize(
    "time_", ["0001-01-01T00:00:00Z", "2263-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-01-01"]
)
def test_a_line_of_an_impossible_time_gets_that_of_its_reading(followed, time_):
    followed.start()
    lines = [line(0), line(1, timestamp=time_), line(2)]
    followed.write(*lines)
    followed.expect(*lines)
    assert abs(followed.rows("ts")[1] - time.time_ns()) < 10 * 10**9


def test_a_file_that_comes_later_is_found(followed):
    followed.start()
    time.sleep(0.2)
    followed.write(line(1, service="nginx"), path=followed.folder / "nginx.log")
    followed.expect(line(1, service="nginx"), seconds=2)


def test_lines_that_could_not_be_written_are_counted_as_their_writer_says(followed):
    said = followed.folder / "log-lines-lost"
    tail = Tail(LogStore(Database(followed.folder / "x.sqlite")), [], environment="test", lost_file=said)
    assert tail.lost == 0
    said.write_text("00000000000000000012\n")
    assert tail.lost == 12
    for nonsense in ("", "many"):
        said.write_text(nonsense)
        assert tail.lost == 12
    said.unlink()
    assert tail.lost == 12


def test_a_line_waits_for_its_end(followed):
    followed.start()
    followed.write(line(0))
    followed.write(line(1)[:20], end="")
    followed.expect(line(0))
    time.sleep(0.3)
    followed.write(line(1)[20:])
    followed.expect(line(0), line(1))


def test_what_is_no_json_is_kept_as_it_is(followed):
    followed.start()
    followed.write("Traceback:", "  same", "  same", "", '["a list"]', '{"half":', '"\U0001f600 ü"')
    followed.expect("Traceback:", "  same", "  same", '["a list"]', '{"half":', '"\U0001f600 ü"')
    assert set(followed.rows("metadata")) == {"{}"}
    with followed.database.read() as connection:
        assert '"service_name":"order-service"' in connection.execute("SELECT labels FROM streams").fetchone()[0]
    assert followed.tail.figures.not_json == 6


def test_bytes_that_are_no_text_are_replaced(followed):
    followed.path.write_bytes(b'{"a":"\xff\xfe"}\nnext\n')
    followed.start()
    followed.expect('{"a":"\ufffd\ufffd"}', "next")


def test_a_renamed_file_is_read_to_its_end(followed):
    followed.start()
    followed.write(line(0))
    followed.expect(line(0))
    with followed.path.open("a") as writer:
        followed.path.rename(followed.folder / "order-service.log.1")
        writer.write(line(1) + "\n")
        writer.flush()
        followed.write(line(2))
        time.sleep(0.2)
        writer.write(line(3) + "\n")
    eventually(lambda: sorted(followed.rows()) == [line(number) for number in range(4)])


def test_a_rotated_file_that_ends_without_a_newline_loses_nothing(followed):
    followed.start()
    followed.write(line(0))
    followed.write(line(1), end="")
    followed.expect(line(0))
    followed.path.rename(followed.folder / "order-service.log.1")
    followed.write(line(2))
    eventually(lambda: sorted(followed.rows()) == [line(number) for number in range(3)])


def test_rotation_while_nobody_followed_loses_nothing(followed):
    followed.write(line(0), line(1))
    followed.start()
    followed.expect(line(0), line(1))
    followed.stop()
    followed.write(line(2))
    followed.path.rename(followed.folder / "order-service.log.2")
    followed.write(line(3))
    followed.path.rename(followed.folder / "order-service.log.1")
    followed.write(line(4))
    followed.start()
    followed.expect(*[line(number) for number in range(5)])


def test_a_truncated_file_is_read_from_its_start(followed):
    followed.start()
    followed.write(*[line(number) for number in range(5)])
    eventually(lambda: len(followed.rows()) == 5)
    os.truncate(followed.path, 0)
    followed.write(line(5))
    followed.expect(*[line(number) for number in range(6)])
    # So quickly that the size alone says nothing.
    followed.path.write_text("".join(line(number) + "\n" for number in range(10, 20)))
    followed.expect(*[line(number) for number in [*range(6), *range(10, 20)]])


def test_a_file_that_was_cut_and_is_as_long_again_is_read_from_its_start(followed):
    followed.start()
    followed.write("one")
    followed.expect("one")
    followed.path.write_text("two\n")
    followed.expect("one", "two")


def test_another_file_with_the_same_inode_is_another_file(followed):
    followed.write(line(0))
    followed.start()
    followed.expect(line(0))
    followed.stop()
    # What happens when the oldest file is deleted and the next new one is given its inode.
    followed.path.write_text(line(1) + "\n" + line(2) + "\n")
    followed.start()
    followed.expect(line(0), line(1), line(2))


def test_a_line_that_is_too_long_is_cut_and_counted(followed):
    followed.start()
    followed.write("x" * (MAX_LINE + 5), line(1))
    followed.expect("x" * MAX_LINE, line(1))
    followed.write("y" * (5 * MAX_LINE), end="")
    eventually(lambda: followed.tail.figures.cut == 2)
    followed.stop()
    followed.write("y" * MAX_LINE, line(2))
    followed.start()
    followed.expect("x" * MAX_LINE, line(1), "y" * MAX_LINE, line(2))


def test_a_full_writer_is_waited_for(followed, monkeypatch):
    write, full = Database.write, [True]

    def refuse(self, *args):
        if full:
            raise Full
        write(self, *args)

    monkeypatch.setattr(Database, "write", refuse)
    followed.start()
    lines = [line(number) for number in range(20)]
    followed.write(*lines)
    time.sleep(0.3)
    assert followed.rows() == []
    full.clear()
    followed.expect(*lines)


def test_a_write_that_is_lost_is_made_again(followed, monkeypatch):
    """As when the disk is full for a moment."""
    monkeypatch.setattr("observability.embedded.tail._STORED_SECONDS", 0.3)
    write, lost = Database.write, []

    def lose(self, job, *args):
        def fail(connection):
            job(connection)
            raise OSError

        lose_it = len(lost) < 2
        if lose_it:
            lost.append(job)
        write(self, fail if lose_it else job, *args)

    followed.start()
    followed.write("no time of its own 0")
    followed.expect("no time of its own 0")
    monkeypatch.setattr(Database, "write", lose)
    for number in range(1, 4):
        followed.write(f"no time of its own {number}")
        time.sleep(0.15)
    followed.expect(*[f"no time of its own {number}" for number in range(4)])
    assert len(lost) == 2


WRITER = """
import json, os, sys, time
path, count = sys.argv[1], int(sys.argv[2])
written = 0
file = open(path, "a")
while written < count:
    for _ in range(50):
        file.write(json.dumps({"service": "order-service", "number": written}) + "\\n")
        written += 1
    file.flush()
    if file.tell() > 60_000:  # as supervisor rotates
        file.close()
        for index in range(8, 0, -1):
            if os.path.exists(f"{path}.{index}"):
                os.replace(f"{path}.{index}", f"{path}.{index + 1}")
        os.replace(path, path + ".1")
        file = open(path, "a")
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_kills_and_rotation_lose_and_double_nothing(start_embedded, tmp_path):
    """The lines have no time of their own, so that nothing but the offsets keeps them from coming twice."""
    path = tmp_path / "order-service.log"
    backend = start_embedded(LOG_FILES=str(path))
    count = 6000
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(count)])
    try:
        for _ in range(5):
            time.sleep(0.7)
            backend.stop(signal.SIGKILL)
            backend.start()
        assert writer.wait(60) == 0
    finally:
        writer.kill()
        writer.wait(10)

    def numbers():
        found, params = [], {"query": '{service_name="order-service"}', "limit": 5000, "direction": "forward"}
        for _ in range(4):
            answer = backend.loki.get("/loki/api/v1/query_range", params=params)
            rows = [row for stream in answer.json()["data"]["result"] for row in stream["values"]]
            found += [json.loads(row[1])["number"] for row in rows]
            if len(rows) < 5000:
                return found
            params["start"] = str(max(int(row[0]) for row in rows) + 1)
        return found

    eventually(lambda: len(numbers()) >= count, 20)
    time.sleep(1)
    assert sorted(numbers()) == list(range(count))
