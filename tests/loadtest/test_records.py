"""What a run leaves beside Locust's numbers."""

from loadtest.records import SLOW_KEPT, Attempt, Collected, Ledger, Slow, read_attempts


def slow(ms, name="/orders/"):
    return Slow(ms, "POST", name, "201", 1.7e9, "ab" * 16)


def test_what_processes_tell_is_written_down_once(tmp_path):
    ledger, first, second = Ledger(tmp_path / "orders"), Collected(), Collected()
    attempts = [Attempt("a", 1, 1, "told", 7, "PAID"), Attempt("b", 24, 1, "unanswered")]
    for process, attempt in zip((first, second), attempts, strict=True):
        process.attempts.append(attempt)
        ledger.add(process.drain())
        ledger.add(process.drain())
    assert list(read_attempts(tmp_path / "orders")) == attempts


def test_a_line_that_a_crash_has_cut_off_is_left_out(tmp_path):
    (tmp_path / "orders").write_text('["a", 1, 1, "told", 7, "PAID"]\n["b", 1, 1, "to')
    assert [attempt.key for attempt in read_attempts(tmp_path / "orders")] == ["a"]


def test_without_orders_there_are_none(tmp_path):
    assert list(read_attempts(tmp_path / "orders")) == []


def test_of_each_name_the_slowest_are_kept(tmp_path):
    ledger, process = Ledger(tmp_path / "orders"), Collected()
    for ms in range(100):
        process.slow(slow(ms))
        if ms % 7 == 0:
            process.slow(slow(ms / 1000, "/products/"))
            ledger.add(process.drain())
    ledger.add(process.drain())
    slowest = ledger.slowest()
    assert [one.ms for one in slowest[:SLOW_KEPT]] == [99, 98, 97, 96, 95]
    assert [one.ms for one in slowest[SLOW_KEPT:]] == [0.098, 0.091, 0.084, 0.077, 0.07]
