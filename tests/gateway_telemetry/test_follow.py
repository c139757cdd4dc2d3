"""Following the log file: nothing is lost, nothing comes twice, whatever happens to the file."""

import json
import threading

import pytest
import structlog

from observability.gateway import __main__ as process
from observability.gateway.follow import Follower
from observability.gateway.line import Vocabulary
from observability.gateway.metrics import GatewayMetrics
from observability.gateway.settings import ROUTES, GatewaySettings
from tests.fixtures.services import eventually


class Reader:
    """A follower and what it read."""

    def __init__(self, folder):
        self.path = folder / "nginx.log"
        self.state = folder / "nginx.log.position"
        self.lines = []
        self.restart()

    def restart(self):
        self.follower = Follower(self.path, self.state, self.lines.extend)

    def append(self, text):
        with self.path.open("a") as file:
            file.write(text)

    def read(self):
        """What came since the last time."""
        self.lines.clear()
        self.follower.read(lambda: False)
        return [line.decode() for line in self.lines]


@pytest.fixture
def reader(tmp_path):
    made = Reader(tmp_path)
    yield made
    made.follower.close()


def test_lines_come_once_each_and_whole(reader):
    assert reader.read() == []  # no file yet
    reader.append("a\nb\nhal")
    assert reader.read() == ["a", "b"]
    assert reader.read() == []
    reader.append("f\n")
    assert reader.read() == ["half"]


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(reader):
    reader.append("a\n")
    assert reader.read() == ["a"]
    reader.append("b\n")
    reader.path.rename(reader.path.with_suffix(".log.1"))
    assert reader.read() == ["b"]
    reader.append("c\n")
    assert reader.read() == ["c"]


def test_two_files_that_came_between_two_looks(reader):
    reader.append("a\n")
    reader.read()
    reader.append("b\n")
    reader.path.rename(reader.path.with_suffix(".log.1"))
    reader.append("c\n")
    assert reader.read() == ["b", "c"]


def test_a_truncated_file_is_read_from_its_start(reader):
    reader.append("a\nb\n")
    reader.read()
    reader.path.write_text("c\n")
    assert reader.read() == ["c"]


def test_a_file_that_was_cut_and_is_as_long_again_is_read_from_its_start(reader):
    reader.append("a\nb\n")
    reader.read()
    reader.path.write_text("c\nd\n")
    assert reader.read() == ["c", "d"]
    reader.path.write_text("e\nf\ng\n")
    assert reader.read() == ["e", "f", "g"]


def test_half_a_line_is_not_mixed_with_another_files(reader):
    reader.append("a\nhal")
    reader.read()
    reader.path.rename(reader.path.with_suffix(".log.1"))
    reader.append("c\n")
    assert reader.read() == ["c"]


def test_a_line_without_end_takes_no_memory_and_is_given_on_once(reader):
    reader.append("x" * 300_000)
    assert [len(line) for line in reader.read()] == [64 * 1024]
    reader.append("x" * 300_000)
    assert reader.read() == []
    reader.append("x\nb\n")
    assert reader.read() == ["b"]


def test_after_a_restart_it_goes_on_where_it_was(reader):
    reader.append("a\nb\nhal")
    reader.read()
    reader.follower.close()
    reader.append("f\nc\n")
    reader.restart()
    assert reader.read() == ["half", "c"]


def test_a_file_that_was_replaced_meanwhile_is_read_from_its_start(reader):
    reader.append("a\nb\n")
    reader.read()
    reader.follower.close()
    reader.path.rename(reader.path.with_suffix(".log.1"))
    reader.append("c\nd\ne\n")
    reader.restart()
    assert reader.read() == ["c", "d", "e"]


def test_another_file_with_the_same_inode_is_another_file(reader):
    reader.append("a\n")
    reader.read()
    reader.follower.close()
    reader.path.write_text("b\nc\n")
    reader.restart()
    assert reader.read() == ["b", "c"]


def test_the_rest_of_a_line_that_is_too_long_is_passed_over_after_a_restart_too(reader):
    reader.append("x" * 300_000)
    reader.read()
    reader.follower.close()
    reader.append("x\nb\n")
    reader.restart()
    assert reader.read() == ["b"]


def test_a_whole_line_that_is_too_long_is_cut(reader):
    reader.append("x" * 100_000 + "\nb\n")
    assert [len(line) for line in reader.read()] == [64 * 1024, 1]


def test_a_state_of_an_older_version_is_gone_on_with(reader):
    reader.append("a\nb\n")
    reader.state.write_text(json.dumps({"inode": reader.path.stat().st_ino, "offset": 2}))
    assert reader.read() == ["b"]


@pytest.mark.parametrize(
    "state",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"inode": "x", "offset": 1}',
        '{"inode": null}',
        '{"inode": 1, "offset": 1, "head": "\u0100"}',
    ],
)
def test_a_state_that_says_nothing_is_the_first_start(reader, state):
    reader.append("a\n")
    reader.state.write_text(state)
    assert reader.read() == ["a"]


def test_a_crash_while_catching_up_repeats_a_chunk_at_most(reader):
    lines = [f"{number:099d}" for number in range(20_000)]
    reader.append("\n".join(lines) + "\n")
    chunks = 0

    def take(_lines):
        nonlocal chunks
        chunks += 1
        if chunks == 5:
            raise KeyboardInterrupt

    crashing = Follower(reader.path, reader.state, take)
    with pytest.raises(KeyboardInterrupt):
        crashing.read(lambda: False)
    crashing.close()
    offset = json.loads(reader.state.read_text())["offset"]
    assert 4 * (256 * 1024 - 100) < offset <= 4 * 256 * 1024
    assert reader.read() == lines[offset // 100 :]


def test_told_to_stop_it_ends_after_the_chunk_at_hand(reader):
    reader.append("x\n" * 400_000)
    reader.follower.read(lambda: True)
    assert 0 < len(reader.lines) < 400_000


def test_a_file_it_may_not_read_is_said_once_until_it_is_readable(reader):
    reader.path.mkdir()
    with structlog.testing.capture_logs() as logged:
        reader.read()
        reader.read()
    assert [entry["event"] for entry in logged] == ["log.unreadable"]
    assert not reader.follower.healthy
    reader.path.rmdir()
    reader.append("a\n")
    assert reader.read() == ["a"]
    assert reader.follower.healthy


def test_an_error_of_who_takes_the_lines_is_ill_health(reader):
    def refuse(_lines):
        raise ValueError("no")

    failing = Follower(reader.path, reader.state, refuse)
    reader.append("a\n")
    with pytest.raises(ValueError, match="no"):
        failing.read(lambda: False)
    assert not failing.healthy
    failing.close()


def test_lines_still_being_taken_at_the_end_are_read_again(reader, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    taken = []

    def take(lines):
        taken.append(len(lines))
        begun.set()
        go.wait(10)

    reader.append("x\n" * 400_000)
    monkeypatch.setattr(process, "_serve", lambda _app, _settings: begun.wait(10))
    monkeypatch.setattr(process, "_STOP_SECONDS", 0.05)
    settings = GatewaySettings(access_log_file=reader.path)
    follower = Follower(reader.path, reader.state, take)
    process._follow(settings, GatewayMetrics(Vocabulary.of(ROUTES)), follower)
    assert len(taken) == 1  # nobody read beside it
    go.set()
    eventually(lambda: "follow" not in {thread.name for thread in threading.enumerate()})
    follower.close()
    assert not reader.state.exists()
    reader.follower.read(lambda: False)
    assert len(reader.lines) == 400_000


def test_a_state_that_cannot_be_written_stops_nothing(reader):
    reader.state.with_name(reader.state.name + ".new").mkdir()
    reader.append("a\n")
    with structlog.testing.capture_logs() as logged:
        assert reader.read() == ["a"]
        reader.append("b\n")
        assert reader.read()[-1] == "b"
    assert [entry["event"] for entry in logged] == ["position.unsaved"]  # once, and not with each line
