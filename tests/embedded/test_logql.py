"""LogQL by itself: what a text means, and what is said of one that means nothing. What it finds: conformance tests."""

import contextlib
import time

import pytest

from observability.embedded import units
from observability.embedded.logql.ast import (
    Both,
    Compare,
    Either,
    Json,
    LabelFilter,
    LineFilter,
    LogQLError,
    LogQuery,
    Matcher,
    RangeAggregation,
    Regexp,
    VectorAggregation,
)
from observability.embedded.logql.engine import MAX_INNER_SERIES, Clock, Evaluation, Steps, TimeLimit, select_lines
from observability.embedded.logql.line import Line
from observability.embedded.logql.parse import MAX_LENGTH, parse, parse_selector

SECOND = 10**9


def test_a_query_is_read_into_selector_and_stages():
    assert parse('{a="b", c!~"d"} |= "x" or `y` | json | e="f"') == LogQuery(
        (Matcher("a", "=", "b"), Matcher("c", "!~", "d")),
        (LineFilter("|=", ("x", "y")), Json(), LabelFilter(Matcher("e", "=", "f"))),
    )


def test_a_metric_is_read_with_its_times_in_nanoseconds():
    assert parse('sum by (a) (rate({a="b"}[1h30m] offset 5m))') == VectorAggregation(
        "sum",
        RangeAggregation("rate", LogQuery((Matcher("a", "=", "b"),)), 5400 * SECOND, 300 * SECOND),
        grouping=parse('sum by (a) (rate({a="b"}[1s]))').grouping,
    )


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a=1 and b=2 or c=3", Either(Both("a", "b"), "c")),
        ("a=1 or b=2 and c=3", Either("a", Both("b", "c"))),
        ("a=1, b=2 or c=3", Both("a", Either("b", "c"))),
        ("a=1 b=2 or c=3", Both("a", Either("b", "c"))),
        ("a=1 or b=2, c=3", Either("a", Both("b", "c"))),
        ("(a=1 or b=2) and c=3", Both(Either("a", "b"), "c")),
    ],
)
def test_conditions_bind_as_in_loki(text, meaning):
    def names(condition):
        if isinstance(condition, Compare):
            return condition.name
        return type(condition)(names(condition.left), names(condition.right))

    assert names(parse(f'{{x="y"}} | {text}').stages[0].condition) == meaning


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        ('"a\\"b\\\\\\n\\t"', 'a"b\\\n\t'),
        ('"\\u00fc\\x41\\101"', "üAA"),
        ("`a\\n\"b'`", "a\\n\"b'"),
        ('""', ""),
    ],
)
def test_strings_are_quoted_as_in_go(quoted, text):
    assert parse(f'{{a="b"}} |= {quoted}').stages == (LineFilter("|=", (text,)),)


def test_names_of_functions_are_labels_where_no_parenthesis_follows():
    assert parse('{sum="x"} | rate > 5 | count_over_time="y"').stages == (
        LabelFilter(Compare("rate", ">", 5.0, "number")),
        LabelFilter(Matcher("count_over_time", "=", "y")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{a="b"} | json | b >', "parse error at line 1, col 21: syntax error: unexpected $end"),
        ('{a="b"}\n|= 5', "parse error at line 2, col 4: syntax error: unexpected NUMBER, expecting STRING"),
        ('{a="b"', "parse error at line 1, col 7: syntax error: unexpected $end, expecting , or }"),
        ('{a="b', "parse error at line 1, col 4: literal not terminated"),
        ('{a="\\d"}', "parse error at line 1, col 4: invalid char escape"),
        ('{a="\\ud800"}', "parse error at line 1, col 4: invalid char escape"),
        ('rate({a="b"}[5x])', 'parse error at line 1, col 13: unknown unit "x" in duration "5x"'),
        ('rate({a="b"}[5m)', "parse error at line 1, col 13: missing closing ']' in duration"),
        ('{a="b"} | unwrap c', "parse error at line 1, col 11: syntax error: unexpected unwrap"),
        ('{a=~"b("}', "parse error : error parsing regexp: missing closing ): `b(`"),
        ('{a="b"} | regexp "x"', "parse error : stage '| regexp \"x\"' : at least one named capture must be supplied"),
    ],
)
def test_an_error_says_where_it_is(text, message):
    with pytest.raises(LogQLError) as error:
        parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "text",
    [
        '{a="b"} | pattern "<_>"',
        '{a="b"} | unpack',
        '{a="b"} | decolorize',
        '{a="b"} |> "<_>"',
        '{a="b"} | c = ip("10.0.0.1")',
        '{a="b"} | line_format "{{ .c | lower }}"',
        '{a="b"} | label_format c="{{ if .d }}e{{ end }}"',
        'label_replace(rate({a="b"}[1m]), "c", "$1", "d", "(.*)")',
        'approx_topk(2, rate({a="b"}[1m]))',
        'rate_counter({a="b"} | unwrap c [1m])',
        'rate({a="b"}[1m]) / on (c) group_left rate({a="b"}[1m])',
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(text):
    with pytest.raises(LogQLError, match="not supported by the embedded backend"):
        parse(text)


def test_a_selector_alone_is_asked_for_where_streams_are_looked_up():
    assert parse_selector('{a="b"}') == (Matcher("a", "=", "b"),)
    with pytest.raises(LogQLError, match="only label matchers are supported"):
        parse_selector('{a="b"} |= "c"')


@pytest.mark.parametrize(
    "text",
    [
        '{a="' + "x" * MAX_LENGTH + '"}',
        "(" * 5000 + "1" + ")" * 5000,
        "1" + "+1" * 8000,
        "1" + "^1" * 8000,
        "sum(" * 1500 + 'rate({a="b"}[1m])' + ")" * 1500,
        '{a="b"}' + '|="x"' * 5000,
        '{a="b"} | ' + "(" * 5000 + "c=1" + ")" * 5000,
        '{a="b"} | ' + "c=1 and " * 2000 + "c=1",
        '{a="b"} | ' + "c=1 or " * 2000 + "c=1",
        '{a="b"} | ' + "c=1," * 2000 + "c=1",
        '{a="b"} |~ "' + "(a*)*" * 1000 + '"',
        '{a="b"} |~ "' + "((((a{1,100}){1,100}){1,100}){1,100})" + '"',
        '{a="b"} | json x="' + "a." * 2000 + 'a"',
        '{a="b"} | line_format "' + "{{.a}}" * 2000 + '"',
        "-" * 2000 + "1",
        "[" * 2000,
        '{a="' + "\\" * 9999,
    ],
    ids=lambda text: text[:30],
)
def test_a_monstrous_query_is_answered_or_refused_soon(text):
    began = time.thread_time()  # of the processor: other tests take time too
    with contextlib.suppress(LogQLError, RecursionError):  # loki.py answers both with 400
        query = parse(text)
        if isinstance(query, LogQuery):
            select_lines(Lines([]), query, 0, 1, limit=1, backward=True, interval=0, clock=Clock())
        else:
            Evaluation(Lines([]), Steps(0, 0, 1), Clock()).run(query)
    assert time.thread_time() - began < 2


class Lines:
    """A source of given lines, `(timestamp, text, metadata)`."""

    def __init__(self, rows):
        self.rows = rows

    def lines(self, _query, start, end, *, backward, **_hints):
        rows = (row for row in self.rows if start <= row[0] < end)
        for timestamp, text, metadata in reversed(list(rows)) if backward else rows:
            yield Line(timestamp, text, {"a": "b"}, metadata)


def points(text, rows, *, start=0, end=60 * SECOND, step=10 * SECOND):
    """The series of a metric query by their labels."""
    series = Evaluation(Lines(rows), Steps(start, end, step), Clock()).run(parse(text))
    return {tuple(key): values for key, values in series.items()}


def test_a_window_is_open_at_its_old_end_and_closed_at_its_new_one():
    rows = [(10 * SECOND, "x", {}), (20 * SECOND, "y", {})]
    assert points('sum(count_over_time({a="b"}[10s]))', rows, end=30 * SECOND) == {(): [None, 1.0, 1.0, None]}
    assert points('sum(count_over_time({a="b"}[20s]))', rows, end=30 * SECOND) == {(): [None, 1.0, 2.0, 1.0]}


def test_labels_that_nobody_looks_at_are_not_parsed():
    rows = [(SECOND, "no JSON", {})]
    assert points('sum(count_over_time({a="b"} | json [10s]))', rows, end=10 * SECOND) == {(): [None, 1.0]}
    with pytest.raises(LogQLError, match="pipeline error: 'JSONParserErr'"):
        points('sum by (c) (count_over_time({a="b"} | json [10s]))', rows)


def test_too_many_series_are_refused():
    many = [(SECOND, "x", {"id": str(number)}) for number in range(501)]
    with pytest.raises(LogQLError, match=r"maximum number of series \(500\)"):
        points('count_over_time({a="b"}[10s])', many)
    assert points('count(count_over_time({a="b"}[10s]))', many, end=10 * SECOND) == {(): [None, 501.0]}
    more = [(SECOND, "x", {"id": str(number)}) for number in range(MAX_INNER_SERIES + 1)]
    with pytest.raises(LogQLError, match=rf"maximum number of series \({MAX_INNER_SERIES}\)"):
        points('count(count_over_time({a="b"}[10s]))', more)
    assert points('sum(count_over_time({a="b"}[10s]))', more, end=10 * SECOND) == {(): [None, MAX_INNER_SERIES + 1.0]}


def test_a_series_for_each_line_is_refused_before_its_windows_are_computed():
    many = ((SECOND, "x", {"id": str(number)}) for number in range(100_000))
    with pytest.raises(LogQLError, match=r"maximum number of series \(500\)"):
        points('count_over_time({a="b"}[10s])', many, step=SECOND)
    assert len(list(many)) > 99_000  # they were not even read


def test_series_times_steps_are_bounded():
    rows = [(SECOND, "x", {"id": str(number)}) for number in range(300)]
    query = 'max(count_over_time({a="b"}[1s]))'
    assert len(points(query, rows, end=5000 * SECOND, step=SECOND)) == 1
    with pytest.raises(LogQLError, match="maximum number of points"):
        points(query, rows, end=10_000 * SECOND, step=SECOND)


def test_an_answer_is_bounded(monkeypatch):
    monkeypatch.setattr("observability.embedded.logql.engine.MAX_ANSWER", 1000)
    rows = [(number, "x" * 100, {}) for number in range(20)]
    asked = {"backward": True, "interval": 0, "clock": Clock()}
    assert len(select_lines(Lines(rows), parse('{a="b"}'), 0, 20, limit=10, **asked)) == 10
    with pytest.raises(LogQLError, match="ask for fewer"):
        select_lines(Lines(rows), parse('{a="b"}'), 0, 20, limit=11, **asked)


def test_a_query_ends_when_its_time_is_over():
    rows = [(number, "x", {}) for number in range(1000)]
    with pytest.raises(TimeLimit):
        select_lines(Lines(rows), parse('{a="b"} |= "y"'), 0, 1000, limit=1, backward=True, interval=0, clock=Clock(0))
    with pytest.raises(TimeLimit):
        Evaluation(Lines(rows), Steps(0, 1000, 1), Clock(0)).run(parse('count_over_time({a="b"}[1s])'))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5400 * SECOND), ("-5m", -300 * SECOND), ("1.5s", 1_500_000_000), ("100ns", 100), ("0", 0)],
)
def test_durations(text, nanoseconds):
    assert units.duration_ns(text) == nanoseconds
    assert units.duration_ns(units.format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "5x", "h", "1h 5m", "1_0s", "999999999y"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"duration"):
        units.duration_ns(text)


@pytest.mark.parametrize(
    ("text", "size"), [("5KB", 5000), ("5kb", 5000), ("1KiB", 1024), ("2.5MB", 2_500_000), ("7B", 7), ("7", 7)]
)
def test_sizes(text, size):
    assert units.size(text) == size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_are_written_without_exponents(value, text):
    assert units.format_number(value) == text


def test_a_pattern_is_matched_in_linear_time():
    """With backtracking this takes longer than the world exists."""
    query = parse('{a="b"} |~ "^(a|aa)+$"')
    line = "a" * 5000 + "b"
    rows = [(1, line, {})]
    assert select_lines(Lines(rows), query, 0, 2, limit=1, backward=True, interval=0, clock=Clock()) == []
    assert parse('{a="b"} | regexp "(?P<c>x)"').stages == (Regexp("(?P<c>x)"),)
