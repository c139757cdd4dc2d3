"""The supervisor's log files on disks that are full, in folders that are gone, and where they cannot be rotated."""

import errno
import os
import random

import pytest
from supervisor.loggers import LogRecord

from local import logfile
from local.logfile import COUNT_FILE, GAP, LogFile


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A disk with room for so many bytes of logs: `disk["room"]`."""
    room = {"room": 1_000_000}
    write = os.write

    def write_what_fits(descriptor, data):
        if not room["room"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(descriptor, data[: room["room"]])
        room["room"] -= done
        return done

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logfile, "LOST", logfile.Lost())
    monkeypatch.setattr(logfile.os, "write", write_what_fits)
    return room


@pytest.fixture
def log(disk):
    made = []

    def make(name="logs/one.log", size=1_000_000, backups=2):
        made.append(LogFile(name, "a", size, backups))
        return made[-1]

    yield make
    for each in made:
        each.close()


def say(log, data):
    log.emit(LogRecord(20, data))


def test_what_fits_is_written_and_the_rest_is_counted_in_whole_lines(disk, log, tmp_path):
    one = log()
    say(one, b"first\n")
    disk["room"] = 3
    say(one, b"second\nthird\nfour")
    say(one, b"th\nfifth\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"first\nsec"
    assert logfile.LOST.lines == 3
    disk["room"] = 1000
    say(one, b"sixth\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"first\nsecond\n" + GAP + b"sixth\n"
    assert int((tmp_path / COUNT_FILE).read_text()) == 3


@pytest.mark.parametrize("seed", range(100))
def test_every_line_is_there_whole_or_counted_however_the_disk_fills(disk, log, tmp_path, seed):
    chance = random.Random(seed)
    one = log()
    said = [b"%d %s" % (number, b"x" * chance.randrange(40)) for number in range(200)]
    data = b"\n".join(said) + b"\n"
    while data:
        disk["room"] = chance.choice([0, chance.randrange(30), chance.randrange(300), 10_000])
        size = chance.randrange(1, 120)
        say(one, data[:size])
        data = data[size:]
    disk["room"] = 10_000
    say(one, b"last\n")
    written = (tmp_path / "logs/one.log").read_bytes().split(b"\n")
    assert written[-2:] == [b"last", b""]
    lines = [line for line in written[:-2] if line + b"\n" != GAP]
    assert lines == [line for line in said if line in set(lines)]
    assert len(lines) + logfile.LOST.lines == len(said)


def test_a_line_that_does_not_end_is_not_kept_for_ever(disk, log, tmp_path):
    one = log()
    disk["room"] = 5
    for _ in range(100):
        say(one, b"x" * 4096)
    disk["room"] = 1_000_000
    say(one, b"its end\nsecond\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"xxxxx\n" + GAP + b"second\n"
    assert logfile.LOST.lines == 1


def test_a_log_that_was_deleted_is_made_again_with_its_folder(log, tmp_path):
    one = log()
    say(one, b"first\n")
    (tmp_path / "logs/one.log").unlink()
    say(one, b"second\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"second\n"
    (tmp_path / "logs/one.log").unlink()
    (tmp_path / "logs").rmdir()
    say(one, b"third\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"third\n"
    assert logfile.LOST.lines == 0


def test_a_log_that_cannot_be_opened_loses_lines_until_it_can(log, tmp_path):
    (tmp_path / "logs").write_text("no folder")
    one = log()
    say(one, b"first\nsecond\n")
    assert logfile.LOST.lines == 2
    (tmp_path / "logs").unlink()
    say(one, b"third\n")
    assert (tmp_path / "logs/one.log").read_bytes() == GAP + b"third\n"


def test_a_line_that_an_earlier_process_left_unfinished_is_ended(log, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/one.log").write_text("unfinis")
    say(log(), b"first\n")
    assert (tmp_path / "logs/one.log").read_bytes() == b"unfinis\nfirst\n"


def test_it_is_rotated_and_keeps_as_many_as_it_is_told(log, tmp_path):
    one = log(size=10)
    for number in range(5):
        say(one, b"line %d...\n" % number)
    kept = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert kept == {"one.log.1": "line 4...\n", "one.log.2": "line 3...\n"}
    say(one, b"more\n")
    assert (tmp_path / "logs/one.log").read_text() == "more\n"


def test_a_rotation_tears_no_line(log, tmp_path):
    one = log(size=10)
    for part in (b"a whole line\nhalf a", b" line\n", b"next\n"):
        say(one, part)
    assert (tmp_path / "logs/one.log.1").read_bytes() == b"a whole line\nhalf a line\n"
    assert (tmp_path / "logs/one.log").read_bytes() == b"next\n"


def test_a_line_that_does_not_end_keeps_no_file_from_being_rotated(log, tmp_path):
    one = log(size=10)
    for _ in range(8):
        say(one, b"x" * 50_000)
    assert (tmp_path / "logs/one.log.1").stat().st_size <= 10 + logfile.MAX_LINE + 50_000


def test_a_log_that_cannot_be_rotated_goes_on(log, tmp_path):
    one = log(size=10)
    (tmp_path / "logs/one.log.1").mkdir()
    (tmp_path / "logs/one.log.1/in the way").touch()
    (tmp_path / "logs/one.log.2").mkdir()
    (tmp_path / "logs/one.log.2/in the way").touch()
    say(one, b"first line\n")
    say(one, b"second line\n")
    assert (tmp_path / "logs/one.log").read_text() == "first line\nsecond line\n"
    assert logfile.LOST.lines == 0


def test_the_supervisors_own_words_have_their_time_and_level(log, tmp_path):
    one = log()
    one.setFormat("%(levelname)s %(message)s\n")
    say(one, "spawned: 'one'")
    assert (tmp_path / "logs/one.log").read_text() == "INFO spawned: 'one'\n"
