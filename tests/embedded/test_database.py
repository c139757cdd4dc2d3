"""The file: groups of writes, a bounded queue, a bounded time to read, and files that are not ours."""

import sqlite3
import threading
import time

import pytest

from observability.embedded.database import Database, Full, Timeout, Unusable
from tests.fixtures.services import eventually


class Numbers:
    """A store of one table."""

    schema = "CREATE TABLE number (value INTEGER NOT NULL)"

    def oldest(self, _connection):
        return None

    def delete_oldest(self, _connection, _before):
        return 0


@pytest.fixture
def numbers(tmp_path):
    database = Database(tmp_path / "numbers.sqlite", queue_bytes=1000)
    database.add(Numbers())
    database.start()
    yield database
    database.stop()


def insert(value):
    return lambda connection: connection.execute("INSERT INTO number VALUES (?)", (value,))


def stored(database):
    with database.read() as connection:
        return [value for (value,) in connection.execute("SELECT value FROM number ORDER BY value")]


def test_what_is_written_is_seen_at_once(numbers):
    numbers.write(insert(1))
    eventually(lambda: stored(numbers) == [1], seconds=1)


def test_writes_that_come_together_are_one_commit(numbers):
    before = numbers.figures.groups
    for value in range(50):
        numbers.write(insert(value))
    assert numbers.flush()
    assert stored(numbers) == list(range(50))
    assert numbers.figures.groups - before <= 3


def test_a_write_that_fails_harms_no_other(numbers, capsys):
    def half(connection):
        connection.execute("INSERT INTO number VALUES (99)")
        raise ValueError

    numbers.write(insert(1))
    numbers.write(half)
    numbers.write(insert(2))
    assert numbers.flush()
    assert stored(numbers) == [1, 2]
    assert numbers.figures.failed_writes == 1


def test_what_is_told_once_it_is_written_is_not_told_of_what_a_full_disk_undid(numbers):
    told = []

    def write(value, *, fault=False):
        def run(connection):
            insert(value)(connection)
            numbers.once_written(lambda: told.append(value))
            if fault:
                raise ValueError

        numbers.write(run)
        assert numbers.flush()

    write(1)
    write(2, fault=True)
    numbers.write(lambda connection: (numbers.once_written(lambda: told.append(3)), connection.execute("ROLLBACK")))
    assert numbers.flush()
    write(4)
    assert stored(numbers) == told == [1, 4]


def test_the_queue_is_bounded_and_takes_more_when_it_has_room(numbers):
    running, go = threading.Event(), threading.Event()

    def block(_connection):
        running.set()
        assert go.wait(10)

    numbers.write(block)
    assert running.wait(5)
    numbers.write(insert(1), 600)
    with pytest.raises(Full):
        numbers.write(insert(2), 600)
    numbers.write(insert(3), 400)
    go.set()
    assert numbers.flush()
    numbers.write(insert(4), 600)
    assert numbers.flush()
    assert stored(numbers) == [1, 3, 4]


def test_one_write_that_is_larger_than_the_queue_is_taken_when_nothing_waits(numbers):
    numbers.write(insert(1), 5000)
    assert numbers.flush()
    assert stored(numbers) == [1]


def test_stopping_writes_what_was_accepted(tmp_path):
    database = Database(tmp_path / "numbers.sqlite")
    database.add(Numbers())
    database.start()
    for value in range(200):
        database.write(insert(value))
    database.stop()
    with pytest.raises(Full):
        database.write(insert(1))
    connection = sqlite3.connect(tmp_path / "numbers.sqlite")
    assert connection.execute("SELECT count(*) FROM number").fetchone() == (200,)
    connection.close()


def test_a_read_that_takes_too_long_ends(numbers):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(Timeout, match=r"0\.05 s"), numbers.read(0.05) as connection:
        connection.execute(endless).fetchall()
    assert stored(numbers) == []


def test_a_reader_cannot_write(numbers):
    with pytest.raises(sqlite3.OperationalError, match="readonly"), numbers.read() as connection:
        connection.execute("DELETE FROM number")


def test_a_reader_sees_one_state_all_the_time(numbers):
    numbers.write(insert(1))
    assert numbers.flush()
    with numbers.read() as connection:
        count = "SELECT count(*) FROM number"
        assert connection.execute(count).fetchone() == (1,)
        numbers.write(insert(2))
        assert numbers.flush()
        assert connection.execute(count).fetchone() == (1,)


def open_again(path):
    database = Database(path)
    database.add(Numbers())
    database.start()
    return database


def test_a_file_of_two_processes_is_refused(numbers, tmp_path):
    with pytest.raises(Unusable, match="in use"):
        open_again(tmp_path / "numbers.sqlite")


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Unusable, match="another program"):
        open_again(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("how_far", ["", "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL"])
def test_a_file_whose_first_process_was_killed_before_it_had_tables_is_new(tmp_path, how_far):
    path = tmp_path / "numbers.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(how_far)
    connection.execute("VACUUM")  # writes the header
    connection.close()
    assert path.stat().st_size
    database = open_again(path)
    database.write(insert(1))
    assert database.flush()
    assert stored(database) == [1]
    database.stop()


def test_a_file_is_known_as_ours_before_anything_else_is_written_into_it(tmp_path, monkeypatch):
    class Killed(Numbers):
        schema = "SELECT no_such_function()"

    path = tmp_path / "numbers.sqlite"
    database = Database(path)
    database.add(Killed())
    with pytest.raises(Unusable):
        database.start()
    open_again(path).stop()


def test_stopping_ends_a_query_that_runs(tmp_path):
    database = open_again(tmp_path / "numbers.sqlite")
    running, ended = threading.Event(), []

    def forever():
        with database.read() as connection:
            running.set()
            connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")

    def ask():
        with pytest.raises(Timeout, match="stops"):
            forever()
        ended.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    assert running.wait(5)
    began = time.monotonic()
    database.stop()
    assert time.monotonic() - began < 5
    thread.join(5)
    assert ended
    with pytest.raises(Timeout), database.read():
        pass


def test_stopping_closes_no_connection_under_its_user(tmp_path):
    database = open_again(tmp_path / "numbers.sqlite")
    running, go, rows = threading.Event(), threading.Event(), []

    def ask():
        with database.read() as connection:
            running.set()
            assert go.wait(10)
            rows.extend(connection.execute("SELECT 1").fetchall())

    thread = threading.Thread(target=ask)
    thread.start()
    assert running.wait(5)
    database.stop()
    go.set()
    thread.join(5)
    assert rows == [(1,)]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "text.sqlite"
    path.write_text("this is no database " * 1000)
    with pytest.raises(Unusable, match="no usable SQLite file"):
        open_again(path)
    assert path.read_text().startswith("this is no database")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "numbers.sqlite"
    database = open_again(path)
    database.write(lambda connection: [connection.execute("INSERT INTO number VALUES (1)") for _ in range(5000)])
    database.stop()
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 20_000)
    with pytest.raises(Unusable, match="delete it"):
        open_again(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unusable, match="cannot be written"):
        open_again(tmp_path / "no" / "numbers.sqlite")


def test_a_file_of_an_older_format_is_begun_anew(tmp_path):
    path = tmp_path / "numbers.sqlite"
    database = open_again(path)
    database.write(insert(1))
    database.stop()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.commit()
    connection.close()
    database = open_again(path)
    assert stored(database) == []
    database.stop()
